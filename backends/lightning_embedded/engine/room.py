"""Room: how many rows of the key-value cache there are, and how long each is, within its limit of memory.

A model's context is much longer than most conversations. If all rows were as long as the context, a few of them would
fill the cache. So rows begin short and are made longer, and fewer, when a conversation needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Rows become shorter again once everything fits into this part of the shorter length. Otherwise the next token might
#: make them longer at once.
_SPARE = 0.75


@dataclass(frozen=True, slots=True)
class Room:
    """Limits of the cache."""

    tokens: int
    """Of all rows together, with one row of waste."""
    slots: int
    """Most rows, however short."""
    length: int
    """Most tokens of a row."""

    def rows(self, length: int) -> int:
        """Number of rows of this length."""
        return min(self.slots, self.tokens // length - 1)

    @property
    def base(self) -> int:
        """The longest length that all slots can have."""
        return min(self.length, max(1, self.tokens // (self.slots + 1)))

    def fit(self, needed: int) -> int:
        """The length for a conversation of `needed` tokens: the base, or a power of two times as long."""
        length = self.base
        while length < needed:
            length *= 2
        return min(length, self.length)

    def fit_loosely(self, needed: int) -> int:
        """As `fit`, with some tokens to spare."""
        return self.fit(int(needed / _SPARE) + 1)
