"""The report of a run, as `train` and `evaluate` return it and `report.json` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError


@dataclass(frozen=True, slots=True)
class Score:
    """A mean score over tasks with its 95% interval."""

    mean: float
    low: float | None
    """None, as `high`: one task has no interval."""
    high: float | None
    n: int
    """Tasks that count; those whose rollout failed do not."""

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.3f}, n={self.n}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}], n={self.n}"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run."""

    folder: Path
    values: dict[str, Any]
    """The contents of report.json."""

    @property
    def before(self) -> Score | None:
        """Score on held-out tasks before training."""
        return self._score("before")

    @property
    def after(self) -> Score | None:
        """Score on held-out tasks after training; of an evaluation, its score."""
        return self._score("after")

    @property
    def steps(self) -> int:
        return int(self.values.get("steps", 0))

    @property
    def train_seconds(self) -> float:
        return float(self.values.get("train_seconds", 0.0))

    def _score(self, name: str) -> Score | None:
        held_out: Mapping[str, Any] = self.values.get("held_out") or {}
        score = held_out.get(name)
        return Score(score["mean"], score["low"], score["high"], score["n"]) if score else None

    def __str__(self) -> str:
        lines = [f"run       {self.folder}"]
        if self.before is not None:
            lines.append(f"before    {self.before}")
        if self.after is not None:
            lines.append(f"after     {self.after}")
        if self.steps:
            lines.append(f"trained   {self.steps} steps in {self.train_seconds:.0f} s")
        return "\n".join(lines)


def read(folder: Path) -> Report:
    """The report in a run's folder; SettingError if there is none."""
    path = folder / "report.json"
    try:
        return Report(folder, json.loads(path.read_text()))
    except FileNotFoundError:
        raise SettingError(f"{folder} has no report.json: the run did not finish, or this is no run") from None
