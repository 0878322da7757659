"""Events for a stream, and which of them a hub's log holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch


def event(number: int, size: int = 1000) -> tuple[Any, ...]:
    return (Event.SPAN, NO_ROLLOUT, [f"{number:016x}", "", "s", "", 0, 0, "ok", "x" * size, {}])


def count_events(folder: Path) -> Counter[int]:
    """Number of each event in the hub's log -> how often it is there."""
    seen: Counter[int] = Counter()
    for segment in sorted((folder / "spans").glob("*.log")):
        data, at = segment.read_bytes(), 0
        while at < len(data):
            header = data[at : at + EventBatch.HEADER.size]
            length = EventBatch.HEADER.unpack(header)[3]
            at += EventBatch.HEADER.size + length
            seen.update(int(fields[2][0], 16) for fields in EventBatch.read(header, data[at - length : at]).events())
    return seen
