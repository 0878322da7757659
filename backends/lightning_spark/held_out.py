"""The held-out tasks, which spark has never seen, and the set that the data generator avoids."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_spark.expressions import normalise

DATASETS = ("basic_arithmetic", "chain_sum")
"""Datasets of the package reasoning-gym, in their default configuration."""
TUNING_SEED = 200_000_000
"""Seed of tasks for choosing data, size and settings."""
FINAL_SEED = 900_000_000
"""Seed of tasks for reporting; no choice is based on them."""
SIZE = 400
"""Number of tasks for each dataset and seed."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Expressions (without whitespace) and questions (without whitespace at the ends) that may not be generated."""

    expressions: frozenset[str]
    questions: frozenset[str]

    def has(self, question: str, expressions: tuple[str, ...]) -> bool:
        """Whether this question, or any of these expressions, is held out."""
        return question.strip() in self.questions or any(normalise(one) in self.expressions for one in expressions)

    def fingerprint(self) -> str:
        """SHA-256 of the sorted content, for the training log."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, path: Path) -> None:
        path.write_text(self._text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Exclusion:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(frozenset(content["expressions"]), frozenset(content["questions"]))

    def _text(self) -> str:
        return json.dumps({"expressions": sorted(self.expressions), "questions": sorted(self.questions)}, indent=0)


def tasks(seed: int, size: int = SIZE) -> list[dict[str, Any]]:
    """`size` tasks of each dataset, alternating, as reasoning-gym's entries."""
    # Only computing the exclusion needs the package; without it, the generator reads the exclusion from a file.
    import reasoning_gym  # noqa: PLC0415

    sets = [reasoning_gym.create_dataset(name, seed=seed, size=size) for name in DATASETS]
    return [dataset[index] for index in range(size) for dataset in sets]


def exclusion() -> Exclusion:
    """All held-out tasks of both seeds."""
    entries = tasks(TUNING_SEED) + tasks(FINAL_SEED)
    return Exclusion(
        frozenset(normalise(entry["metadata"]["expression"]) for entry in entries),
        frozenset(entry["question"].strip() for entry in entries),
    )
