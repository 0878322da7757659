"""The journal of a search: every result and every reply of the reflecting model, on disk before it is used.

One JSON object a line. A resumed search runs its algorithm again from the beginning with the same seed; what the
journal has is read instead of run, so it comes to where it was and goes on as if nothing had happened. A line torn by
a kill is dropped when the file is opened.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_prompts.arena import TrialKey, TrialResult
from lightning_sdk.errors import SettingError

VERSION = 1

ReplyKey = tuple[str, int]
"""Digest of what the reflecting model was asked, and how often that had been asked before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What came of one question to the reflecting model."""

    text: str = ""
    error: str = ""
    """Why there is no text."""
    tokens: int = 0
    money: float = 0.0
    """Dollars, where the model has a price."""
    attempts: int = 1
    """Calls that were made for it."""
    seconds: float = 0.0


class Journal:
    """One file, or none: then only memory. Any thread may add."""

    def __init__(self, path: Path | None = None) -> None:
        """SettingError for a file of another version."""
        self._path, self._lock = path, threading.Lock()
        self.results: dict[TrialKey, TrialResult] = {}
        self.replies: dict[ReplyKey, ModelReply] = {}
        self.seconds = 0.0
        """When the last line was written, in seconds of search."""
        self.clock: Callable[[], float] = lambda: 0.0
        """Seconds of search until now."""
        self._begun: set[TrialKey] = set()
        self._facts: dict[str, Any] = {}
        if path is not None:
            self._read(path)
        self.interrupted = len(self._begun - set(self.results))
        """Rollouts under way when an earlier session was killed: they are run again, and not charged twice."""

    def begin(self, keys: Iterable[TrialKey]) -> None:
        """These rollouts are about to be run."""
        self._add({"kind": "begun", "keys": [list(key) for key in keys]})

    def add_result(self, key: TrialKey, result: TrialResult) -> None:
        self.results[key] = result
        self._add({"kind": "result", "key": list(key), "result": result.as_line()})

    def add_reply(self, key: ReplyKey, reply: ModelReply, asked: str) -> None:
        """`asked` is kept for people."""
        self.replies[key] = reply
        self._add({"kind": "reply", "key": list(key), "reply": asdict(reply), "asked": asked})

    def fact(self, name: str, make: Callable[[], Any]) -> Any:
        """A value (JSON) that stays what it was when first asked for, over all sessions."""
        if name not in self._facts:
            self._facts[name] = make()
            self._add({"kind": "fact", "name": name, "value": self._facts[name]})
        return self._facts[name]

    def _add(self, line: dict[str, Any]) -> None:
        if self._path is None:
            return
        text = json.dumps({**line, "at": round(self.clock(), 3)}, allow_nan=False) + "\n"
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        data = path.read_bytes() if path.exists() else b""
        whole, _, torn = data.rpartition(b"\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.strip()]
        if torn:
            _replace(path, whole + b"\n" if whole else b"")
        if lines and lines[0].get("version") != VERSION:
            raise SettingError(f"{path} was written by another version of the search: begin a new run")
        if not lines:
            self._add({"kind": "search", "version": VERSION})
        for line in lines:
            self._take(line)
        self._forget_last_errors()

    def _take(self, line: dict[str, Any]) -> None:
        self.seconds = float(line["at"])
        match line["kind"]:
            case "begun":
                self._begun.update((key[0], key[1], key[2]) for key in line["keys"])
            case "result":
                self.results[line["key"][0], line["key"][1], line["key"][2]] = TrialResult.from_line(line["result"])
            case "reply":
                self.replies[line["key"][0], line["key"][1]] = ModelReply(**line["reply"])
            case "fact":
                self._facts[line["name"]] = line["value"]

    def _forget_last_errors(self) -> None:
        """A model that failed at the end is asked again: what was wrong with it may be mended by now."""
        for key, reply in reversed(list(self.replies.items())):
            if not reply.error:
                return
            del self.replies[key]


def _replace(path: Path, data: bytes) -> None:
    """Write the whole file or nothing."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    os.replace(fresh, path)  # noqa: PTH105 - the atomic one, by name
