"""Open rows: the sequences of one role that later calls may still continue, found by their ids.

The cost of a call grows with the length of its prompt, not with the number of rows: an agent may ask a
sub-agent thousands of times in one rollout.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_hub.trajectories.transition import Transition

ID_BYTES = 4


class Prompt(NamedTuple):
    """The ids of a prompt, packed, and a hash of every beginning of them."""

    ids: bytes
    hashes: NDArray[np.uint64]
    """[P + 1] `hashes[n]` is that of the first n ids."""

    def __len__(self) -> int:
        return len(self.hashes) - 1


@dataclass(slots=True, eq=False)
class OpenRow:
    """A sequence that later calls may still continue."""

    first: int
    """Smallest index of its transitions in the input: rows come out in the order in which they began."""
    ids: bytes = b""
    transitions: list[Transition] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Position of the first sampled token of each."""

    def add(self, transition: Transition, prompt: bytes) -> None:
        self.starts.append(len(prompt) // ID_BYTES)
        self.transitions.append(transition)
        self.ids = prompt + pack(transition.completion_ids)


class OpenRows:
    """The open rows of one role in one rollout."""

    def __init__(self) -> None:
        self.rows: list[OpenRow] = []
        self._ends: dict[tuple[int, float], list[OpenRow]] = {}
        """Hash of all ids, and temperature -> rows."""
        self._lengths: Counter[int] = Counter()
        """Number of ids -> number of rows with as many."""
        self._begun: dict[int, list[OpenRow]] = {}
        """Hash of the first prompt -> rows."""
        self._first_lengths: set[int] = set()
        self._sorted: list[tuple[bytes, int, OpenRow]] = []
        """Sorted by their ids: neighbours share most."""

    def find_prefix(self, prompt: Prompt, temperature: float) -> OpenRow | None:
        """The longest row that is an exact prefix of the prompt; a row has one temperature."""
        for length in sorted(self._lengths, reverse=True):
            if length <= len(prompt):
                for row in self._ends.get((int(prompt.hashes[length]), temperature), ()):
                    if prompt.ids.startswith(row.ids):
                        return row
        return None

    def find_nearest(self, prompt: Prompt, call: str) -> OpenRow | None:
        """The row that shares most with the prompt, and at least its whole first prompt: the one that it left.

        Rows that `call` itself made do not count, which are its other choices. Where the row that shares most began
        later than the prompt left it, it is the last row of those whose first prompt this one begins with.
        """
        nearest = max(self._neighbours(prompt, call), key=lambda each: each[0], default=None)
        if nearest is None or nearest[0] >= nearest[1].starts[0]:
            return nearest and nearest[1]
        for length in sorted(self._first_lengths, reverse=True):
            if length <= len(prompt):
                for begun in reversed(self._begun.get(int(prompt.hashes[length]), ())):
                    if begun.transitions[-1].call != call and prompt.ids.startswith(begun.ids[: length * ID_BYTES]):
                        return begun
        return None

    def put(self, row: OpenRow, transition: Transition, prompt: Prompt) -> None:
        """Continue the row, new or not, with this prompt and what was sampled after it."""
        if row.transitions:
            self._forget(row)
        else:
            self.rows.append(row)
            self._begun.setdefault(int(prompt.hashes[-1]), []).append(row)
            self._first_lengths.add(len(prompt))
        row.add(transition, prompt.ids)
        self._ends.setdefault(_end(row), []).append(row)
        self._lengths[len(row.ids) // ID_BYTES] += 1
        insort(self._sorted, (row.ids, row.first, row))

    def _forget(self, row: OpenRow) -> None:
        length = len(row.ids) // ID_BYTES
        self._ends[_end(row)].remove(row)
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
        place = bisect_left(self._sorted, (row.ids,))
        while self._sorted[place][2] is not row:
            place += 1
        del self._sorted[place]

    def _neighbours(self, prompt: Prompt, call: str) -> Iterator[tuple[int, OpenRow]]:
        """The next row on either side in the order of ids, and how much it shares."""
        place = bisect_left(self._sorted, (prompt.ids,))
        for side in (range(place, len(self._sorted)), range(place - 1, -1, -1)):
            row = next((row for at in side if (row := self._sorted[at][2]).transitions[-1].call != call), None)
            if row is not None:
                yield shared_length(row.ids, prompt.ids), row


def read_prompt(packed: bytes) -> Prompt:
    return Prompt(packed, _hashes(packed))


def pack(ids: NDArray[np.int32]) -> bytes:
    return np.ascontiguousarray(ids, "<i4").tobytes()


def shared_length(one: bytes, other: bytes) -> int:
    """The number of leading ids that are the same."""
    length = min(len(one), len(other))
    differs = np.frombuffer(one[:length], "<i4") != np.frombuffer(other[:length], "<i4")
    return int(differs.argmax()) if differs.any() else length // ID_BYTES


def _end(row: OpenRow) -> tuple[int, float]:
    return int(_hashes(row.ids)[-1]), row.transitions[-1].temperature


def _hashes(packed: bytes) -> NDArray[np.uint64]:
    """[N + 1] of the first n ids, for each n: sums of what splitmix64 makes of each id and its place."""
    ids = np.frombuffer(packed, "<i4")
    mixed = ids.astype(np.uint64) + np.arange(1, len(ids) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)])
