"""What was set aside: pieces of a run's log that cannot be used, listed in a file that people can read."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

NAME = "set-aside.jsonl"
#: Lines that one process writes.
_MAX_LINES = 1000
#: Bytes of a piece that are unpacked to be shown; of a longer one the first bytes are.
_MAX_UNPACKED_BYTES = 65_536
_SHOWN_CHARACTERS = 2000
_log = logging.getLogger(__name__)


class SetAside:
    """The list of one run. It is only written to; the pieces stay in the log."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = folder / NAME, warn
        self.count = 0

    def add(self, where: str, piece: bytes, why: str) -> None:
        """List a piece. Told at the first, the tenth, the hundredth ..."""
        self.count += 1
        if self.count <= _MAX_LINES:
            line = {"time": time.time(), "where": where, "bytes": len(piece), "why": why, "holds": _show(piece)}
            # A full disk is told elsewhere.
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.count in {10**power for power in range(9)}:
            many = "A received event" if self.count == 1 else f"{self.count:,} received events"
            self._warn(f"{many} cannot be used and will be ignored; the last one: {why}. {self._path} lists them")


def _show(piece: bytes) -> str:
    try:
        text = repr(msgspec.msgpack.decode(piece)) if len(piece) <= _MAX_UNPACKED_BYTES else ""
    except (ValueError, RecursionError):
        text = ""
    return (text or piece[: _SHOWN_CHARACTERS // 2].hex())[:_SHOWN_CHARACTERS]
