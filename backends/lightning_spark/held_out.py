"""The held-out tasks, which spark has never seen, and the set that the data generator avoids.

Two kinds are avoided. One task in ten of every skill is reserved: the hash of what it asks decides, so nothing has to
be listed, and the same task in other words is reserved too. And there are the tasks of the demo and of the examples,
which are chosen elsewhere.
"""

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
EXAMPLES = Path(__file__).parent / "examples_held_out.txt"
"""Digests of what the examples hold out: questions, sums, and lists of rooms."""
_RESERVED = 10


def is_reserved(key: str) -> bool:
    """Whether a task is one of those that are never generated for pre-training, by its key."""
    return int(digest(key), 16) % _RESERVED == 0


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a text without whitespace."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Expressions (without whitespace) and questions (without whitespace at the ends) that may not be generated."""

    expressions: frozenset[str]
    questions: frozenset[str]
    digests: frozenset[str] = frozenset()
    """Of further questions, expressions and keys."""
    reserves: bool = True
    """Whether reserved tasks are left out."""

    def has(self, question: str, expressions: tuple[str, ...], keys: tuple[str, ...] = ()) -> bool:
        """Whether this question, any of these expressions or any of these keys is held out."""
        if question.strip() in self.questions or any(normalise(one) in self.expressions for one in expressions):
            return True
        if self.reserves and any(map(is_reserved, keys)):
            return True
        return bool(self.digests) and any(digest(one) in self.digests for one in (question, *expressions, *keys))

    def fingerprint(self) -> str:
        """SHA-256 of the sorted content, for the training log."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, path: Path) -> None:
        path.write_text(self._text(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Exclusion:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            frozenset(content["expressions"]),
            frozenset(content["questions"]),
            frozenset(content["digests"]),
            content["reserves"],
        )

    def _text(self) -> str:
        content = {
            "expressions": sorted(self.expressions),
            "questions": sorted(self.questions),
            "digests": sorted(self.digests),
        }
        return json.dumps(content | {"reserves": self.reserves}, indent=0)


NOTHING = Exclusion(frozenset(), frozenset(), reserves=False)
"""Nothing is held out."""


def tasks(seed: int, size: int = SIZE) -> list[dict[str, Any]]:
    """`size` tasks of each dataset, alternating, as reasoning-gym's entries."""
    # Only computing the exclusion needs the package; without it, the generator reads the exclusion from a file.
    import reasoning_gym  # noqa: PLC0415

    sets = [reasoning_gym.create_dataset(name, seed=seed, size=size) for name in DATASETS]
    return [dataset[index] for index in range(size) for dataset in sets]


def exclusion() -> Exclusion:
    """All held-out tasks: of both seeds, of the examples, and the reserved ones."""
    entries = tasks(TUNING_SEED) + tasks(FINAL_SEED)
    return Exclusion(
        frozenset(normalise(entry["metadata"]["expression"]) for entry in entries),
        frozenset(entry["question"].strip() for entry in entries),
        frozenset(EXAMPLES.read_text(encoding="utf-8").split()),
    )
