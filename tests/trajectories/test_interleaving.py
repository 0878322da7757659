"""Spans of rollouts that run at once arrive mixed: what comes of each rollout does not depend on how."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hub.backend import Endpoint, Row
from lightning_hub.credit.batch import build_batch
from lightning_hub.rollout import Assignment
from lightning_hub.rollouts.collector import collect
from lightning_hub.rollouts.leases import Outcome
from lightning_hub.storage.index import Index, locate
from lightning_hub.storage.log import Log
from lightning_hub.storage.store import Store
from lightning_sdk.settings import Settings
from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import Event, EventBatch
from lightning_sdk.trace.call import Call, Status
from tests.trajectories.conversations import call, sample

KEYS = [bytes([number]) * 16 for number in range(3)]


def conversation(key: bytes, turns: int) -> list[tuple[Any, ...]]:
    """The events of a rollout of one role: calls that go on from each other, each with a reward."""
    events: list[tuple[Any, ...]] = []
    tokens = [1, key[0]]
    for turn in range(turns):
        made: Call = call(10 * turn + 1, tokens, sample(20 + turn, 30 + key[0]))
        events.append((Event.CALL, key, made.pack()))
        events.append((Event.REWARD, key, (turn + key[0]) / 4, "", "step", "", 10 * turn + 5))
        tokens = [*tokens, 20 + turn, 30 + key[0], 2]
    return events


def rows_of(batches: Sequence[Sequence[tuple[Any, ...]]]) -> list[Row]:
    """The rows that the three rollouts come to once these batches went through a real log and index."""
    with tempfile.TemporaryDirectory() as folder:
        log, store = Log(Path(folder, "spans")), Store(Path(folder, "hub.sqlite"))
        index = Index(log, store, lambda end: True)
        number = 1
        for events in batches:
            body = b"".join(wire.pack(list(event)) for event in events)
            batch = EventBatch(b"c" * 16, number, len(events), body)
            [position] = log.append([(batch.header(), batch.body)])
            index.add(position, batch, locate(batch.body, len(events)))
            number += len(events)
        rollouts = [collect(index, Outcome(assignment(key), Status.OK, "", 1.0)) for key in KEYS]
        store.close()
        log.close()
    return build_batch(rollouts, Settings.from_dict({"credit.returns": "to_go"})).rows


def assignment(key: bytes) -> Assignment:
    return Assignment(
        id=key.hex(),
        key=key,
        task_id=0,
        task={},
        group="g",
        mode="train",
        attempt=1,
        timeout=1.0,
        endpoint=Endpoint("", "", ""),
        sampling={},
        roles=(),
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_interleaving_the_spans_of_rollouts_changes_nothing(data: st.DataObject) -> None:
    """Any mixture of three rollouts' events, in batches of any size, gives the very rows that one by one give."""
    events = [conversation(key, data.draw(st.integers(1, 3))) for key in KEYS]
    order = data.draw(st.permutations([number for number, each in enumerate(events) for _ in each]))
    waiting = [iter(each) for each in events]
    mixed = [next(waiting[number]) for number in order]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(mixed) - 1))))
    batches = [mixed[start:end] for start, end in zip([0, *cuts], [*cuts, len(mixed)], strict=True)]
    for one, other in zip(rows_of(events), rows_of(batches), strict=True):
        assert (one.rollout, one.role, one.version) == (other.rollout, other.role, other.version)
        for name in ("tokens", "weights", "advantages", "logprobs"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
