"""The index: which events belong to which rollout, while others read it, and within bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_hub.storage.index import Index, locate
from lightning_hub.storage.log import Log
from lightning_hub.storage.store import Store
from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import NO_ROLLOUT, EventBatch
from tests.hub.hubs import span

#: Append one event with this key and this payload.
Append = Callable[[bytes, str], None]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "spans", segment_bytes=1000)
    yield log
    log.close()


@pytest.fixture
def index(tmp_path: Path, log: Log) -> Iterator[Index]:
    store = Store(tmp_path / "hub.sqlite")
    yield Index(log, store, lambda end: True)
    store.close()


@pytest.fixture
def append(index: Index, log: Log) -> Append:
    def append(key: bytes, text: str) -> None:
        batch = EventBatch(b"c" * 16, index.clients.get(b"c" * 16, 0) + 1, 1, wire.pack(span(text, key)))
        [position] = log.append([(batch.header(), batch.body)])
        index.add(position, batch, locate(batch.body, 1))

    return append


def test_old_segments_go_when_the_log_is_bounded(index: Index, log: Log, append: Append) -> None:
    """Only segments without events of a rollout are deleted, oldest first, and it is counted."""
    key = os.urandom(16)
    for number in range(6):
        append(key if number == 1 else NO_ROLLOUT, "x" * 1000)
    assert index.retain(4000) == 3
    assert log.segments() == [2, 5, 6]
    assert index.counters["dropped_events"] == 3
    assert index.retain(1) == 1
    assert log.segments() == [2, 6]
    assert [getattr(event, "name", "") for event in index.events(key)] == ["x" * 1000]


def test_a_reader_sees_each_event_once_while_the_index_is_saved(index: Index, append: Append) -> None:
    """Saving moves extents from memory to the store; a trainer that reads at that moment must not see both."""
    key, seen, done = os.urandom(16), list[int](), threading.Event()

    def read() -> None:
        while not done.is_set():
            positions = index.extents(key)[::2]
            seen.append(len(positions) - len(set(positions)))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        append(key, str(number))
        index.save()
    done.set()
    reader.join()
    assert seen
    assert not any(seen)
    assert [getattr(event, "name", "") for event in index.events(key)] == [str(number) for number in range(300)]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (wire.pack(span("a")), 2),
        (wire.pack(span("a")) * 2, 1),
        (wire.pack(span("a"))[:-1], 1),
        (wire.pack({"a": 1}), 1),
        (wire.pack([3, b"short", []]), 1),
        (wire.pack([300, b"k" * 16, []]), 1),
        (b"\xc1", 1),
        (b"\x91" * 5000, 1),
    ],
    ids=range(9),
)
def test_a_body_that_does_not_hold_its_events_is_refused(body: bytes, count: int) -> None:
    """Nothing is logged that could not be read back."""
    with pytest.raises(ValueError, match=r"event"):
        locate(body, count)
