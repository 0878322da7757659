"""A need: memory, by what takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    parts: Mapping[str, float]
    """What takes it -> bytes."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        """In words, the largest first; what is nothing is left out."""
        told = sorted(self.parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {size / GB:.1f} GB" for name, size in told if size >= GB / 20)
