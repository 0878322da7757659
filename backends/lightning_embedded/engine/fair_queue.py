"""A fair queue: sequences that wait for a slot, taken from each client in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator

from lightning_embedded.engine.sequence import Sequence


class FairQueue:
    """First in, first out for each client."""

    def __init__(self) -> None:
        self._first: deque[Sequence] = deque()
        """Sequences that had a slot before; they go first."""
        self._lines: dict[Hashable, deque[Sequence]] = {}
        """Client -> its sequences. The first client is next."""

    def __len__(self) -> int:
        return len(self._first) + sum(map(len, self._lines.values()))

    def __bool__(self) -> bool:
        return bool(self._first or self._lines)

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._first
        for line in self._lines.values():
            yield from line

    def extend(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            self._lines.setdefault(sequence.client, deque()).append(sequence)

    def put_back(self, sequences: Iterable[Sequence]) -> None:
        """Put back sequences that already had a slot."""
        self._first.extend(sequences)

    def take(self) -> Sequence:
        """Remove and return the next sequence. IndexError if there is none."""
        if self._first or not self._lines:
            return self._first.popleft()
        client, line = next(iter(self._lines.items()))
        del self._lines[client]
        sequence = line.popleft()
        if line:
            self._lines[client] = line  # behind all others
        return sequence

    def drop_aborted(self) -> None:
        waiting = [each for line in self._lines.values() for each in line if not each.aborted]
        self._first = deque(each for each in self._first if not each.aborted)
        self._lines = {}
        self.extend(waiting)
