"""How much memory is needed, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    parts: Mapping[str, float]
    """What it is for -> bytes."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        """The parts with their sizes, largest first, without those below 0.05 GB."""
        parts = sorted(self.parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {size / GB:.1f} GB" for name, size in parts if size >= GB / 20)
