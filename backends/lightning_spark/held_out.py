"""The held-out tasks that spark never saw: which they are, and the set that the data generator avoids."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_spark.expressions import normalise

DATASETS = ("basic_arithmetic", "chain_sum")
"""Of the package reasoning-gym, in their default configuration."""
TUNING_SEED = 200_000_000
"""For choosing data, size and settings."""
FINAL_SEED = 900_000_000
"""For reporting; no choice was made by looking at it."""
SIZE = 400
"""Tasks of each dataset and seed."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Expressions (without whitespace) and questions (without whitespace at the ends) that may not be generated."""

    expressions: frozenset[str]
    questions: frozenset[str]

    def has(self, question: str, expressions: tuple[str, ...]) -> bool:
        """Whether this question, or any of these expressions, is held out."""
        return question.strip() in self.questions or any(normalise(one) in self.expressions for one in expressions)

    def fingerprint(self) -> str:
        """SHA-256 of the sorted content; the training log holds it."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, path: Path) -> None:
        path.write_text(self._text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Exclusion:
        """What `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(frozenset(content["expressions"]), frozenset(content["questions"]))

    def _text(self) -> str:
        return json.dumps({"expressions": sorted(self.expressions), "questions": sorted(self.questions)}, indent=0)


def tasks(seed: int, size: int = SIZE) -> list[dict[str, Any]]:
    """`size` tasks of each dataset, as reasoning-gym's entries, in turns."""
    # Only making the exclusion needs the package; the generator reads it from a file where it is not installed.
    import reasoning_gym  # noqa: PLC0415

    sets = [reasoning_gym.create_dataset(name, seed=seed, size=size) for name in DATASETS]
    return [dataset[index] for index in range(size) for dataset in sets]


def exclusion() -> Exclusion:
    """Every held-out task of both seeds."""
    entries = tasks(TUNING_SEED) + tasks(FINAL_SEED)
    return Exclusion(
        frozenset(normalise(entry["metadata"]["expression"]) for entry in entries),
        frozenset(entry["question"].strip() for entry in entries),
    )
