"""Run folders made up for measurements and tests: a store and a log as a hub writes them, of any size."""

from __future__ import annotations

import json
import uuid
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from lightning_hub.storage.index import locate
from lightning_hub.storage.log import Log
from lightning_hub.storage.rows import AnswerRow, BeginRow, EndRow, ExtentRow, RewardRow
from lightning_hub.storage.store import Store
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import Event, EventBatch, pack_floats, pack_ints
from lightning_sdk.trace.call import Call, CallMeta, Choice, Span

#: When the first rollout of a made-up run began, Unix time in seconds.
BEGAN = 1_790_000_000.0
_CLIENT = b"made-up-client--"


@dataclass(kw_only=True)
class MadeRollout:
    """One attempt at a rollout."""

    group: str
    """As the hub names them: 'STEP-NUMBER' in training, 'EVALUATION-NUMBER' else."""
    mode: str = "train"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    key: bytes = field(default_factory=lambda: uuid.uuid4().bytes)
    attempt: int = 1
    status: str = "ok"
    """'running': it is not over."""
    error: str = ""
    task: dict[str, Any] = field(default_factory=lambda: {"question": "2 + 3?"})
    task_id: int = 1
    answer: str = "5"
    runner: str = "runner-1"
    started: float = BEGAN
    seconds: float = 1.5
    rewards: Sequence[tuple[str, str, float, str]] = ()
    """Role, name, value and reason of each."""
    events: bytes = b""
    """Its calls and spans, as `pack_events` returns them, with any key."""


def made_call(
    number: int, messages: Sequence[dict[str, Any]], answer: str, *, role: str = "solver", **meta: Any
) -> Call:
    """A trained call, the `number`th of its rollout."""
    started = int(BEGAN * 1e9) + number * 100_000_000
    values = {
        "id": f"{number:016x}",
        "parent": "",
        "role": role,
        "trainable": True,
        "started_ns": started,
        "ended_ns": started + 80_000_000,
        "status": "ok",
        "error": "",
        "http_status": 200,
        "streamed": False,
        "path": "/v1/chat/completions",
        "framework": "openai",
    }
    sampled = list(answer.encode())
    choice = Choice(
        index=0,
        message=json.dumps({"role": "assistant", "content": answer}).encode(),
        finish_reason="stop",
        token_ids=pack_ints(sampled),
        logprobs=pack_floats([-0.25] * len(sampled)),
        versions=[[1, len(sampled)]],
    )
    prompt = list(json.dumps(list(messages)).encode())
    return Call(
        meta=CallMeta(**{**values, **meta}),
        request=json.dumps({"model": "spark", "messages": list(messages), "temperature": 1.0}).encode(),
        response_id=f"chatcmpl-{number}",
        model="spark",
        prompt_ids=pack_ints(prompt),
        choices=(choice,),
        input_tokens=len(prompt),
        output_tokens=len(sampled),
    )


def pack_events(items: Iterable[Call | Span]) -> bytes:
    """Calls and spans as they lie in the log."""
    kinds = {Call: Event.CALL, Span: Event.SPAN}
    return b"".join(msgpack.packb([int(kinds[type(each)]), bytes(16), each.pack()]) for each in items)


class MadeRun:
    """A run's folder that is written from outside of a hub."""

    def __init__(self, folder: Path, settings: Settings | None = None, **config: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        values = {"name": folder.name, "kind": "training", "settings": (settings or Settings()).as_dict(), **config}
        (folder / "config.json").write_text(json.dumps(values))
        self.store, self._log = Store(folder / "hub.sqlite"), Log(folder / "spans")
        self._count = 0

    def add(self, rollouts: Sequence[MadeRollout]) -> None:
        """Write these attempts, with their events and rewards."""
        records, places = [], []
        for each in rollouts:
            located = locate(each.events, _count_events(each.events))
            body = bytearray(each.events)
            for event in located:
                body[event.start + 4 : event.start + 20] = each.key
            if located:
                batch = EventBatch(_CLIENT, self._count + 1, len(located), bytes(body))
                self._count += len(located)
                records.append((batch.header(), bytes(body)))
                places.append((each.key, located))
        extents = []
        for position, (key, located) in zip(self._log.append(records) if records else [], places, strict=True):
            flat = array("Q", (number for event in located for number in event.extent(position)))
            extents.append(ExtentRow(key, flat.tobytes()))
        with self.store.transaction():
            self.store.put_extents(extents)
            self._write(rollouts)

    def _write(self, rollouts: Sequence[MadeRollout]) -> None:
        self.store.begin(
            BeginRow(
                key=each.key,
                id=each.id,
                attempt=each.attempt,
                mode=each.mode,
                task_id=each.task_id,
                task=json.dumps(each.task),
                group=each.group,
                runner=each.runner,
                started=each.started,
            )
            for each in rollouts
        )
        self.end([each for each in rollouts if each.status != "running"])
        self.store.put_rewards(
            RewardRow(
                key=each.key,
                role=role,
                name=name,
                value=value,
                refused="",
                span="",
                time_ns=int((each.started + each.seconds) * 1e9),
                by_function=True,
                why=why,
            )
            for each in rollouts
            for role, name, value, why in each.rewards
        )

    def end(self, rollouts: Sequence[MadeRollout]) -> None:
        """These are over, with the status that they have now."""
        self.store.end(
            EndRow(each.status, each.error, each.answer, each.started + each.seconds, each.key) for each in rollouts
        )
        self.store.put_answers(AnswerRow(json.dumps(each.answer), "", each.key) for each in rollouts)

    def steps(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append the metrics of steps."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def close(self) -> None:
        self.store.put({"position": self._log.end})  # a hub that goes on there has nothing to recover
        self.store.close()
        self._log.close()


def _count_events(body: bytes) -> int:
    unpacker = msgpack.Unpacker()
    unpacker.feed(body)
    return sum(1 for _ in unpacker)
