"""The report of a run, as `train` and `evaluate` return it and `report.json` holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A mean score over tasks, or a difference of two, with its 95% interval."""

    mean: float
    """The mean; NaN if no task has a score."""
    low: float | None
    """Lower end of the 95% interval; None, like `high`, if no interval can be given."""
    high: float | None
    n: int
    """Number of tasks with a score; a task whose rollouts all failed has none."""
    seeds: int = 1
    """Number of rollouts of each task."""
    missing: str = ""
    """Why there is no interval; '' if there is one."""

    def __str__(self) -> str:
        return self._format("")

    def format_change(self) -> str:
        """The score as text, with the sign of a difference."""
        return self._format("+")

    def _format(self, sign: str) -> str:
        tasks = f"n={self.n}" + (f" x {self.seeds} seeds" if self.seeds > 1 else "")
        if math.isnan(self.mean):
            return f"no score, {tasks}"
        if self.low is None or self.high is None:
            return f"{self.mean:{sign}.3f}, {tasks}" + (f" (no interval: {self.missing})" if self.missing else "")
        return f"{self.mean:{sign}.3f} [{self.low:{sign}.3f}, {self.high:{sign}.3f}], {tasks}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run, as `report.json` holds it."""

    folder: Path
    values: dict[str, Any]
    """The contents of report.json."""

    @property
    def before(self) -> Score | None:
        """Score on held-out tasks before training."""
        return self._score("before")

    @property
    def after(self) -> Score | None:
        """Score on held-out tasks after training; for an evaluation, its score."""
        return self._score("after")

    @property
    def change(self) -> Score | None:
        """Score after minus before, by task, over the tasks that have both; None if no task has both."""
        return _score(self.values.get("change"))

    @property
    def verdict(self) -> str:
        """'better', 'worse', 'not shown to be better' or 'not measured'."""
        return str(self.values.get("verdict") or "not measured")

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What is wrong, as `check` reports it: each has kind, severity ('fatal' or 'warning'), what, cause, remedy."""
        return list(self.values.get("findings") or ())

    @property
    def verdict_reason(self) -> str:
        """What the verdict rests on, or why it is not a better one; '' if the interval of the change makes it clear."""
        return str(self.values.get("verdict_reason") or "")

    @property
    def steps(self) -> int:
        return int(self.values.get("steps", 0))

    @property
    def train_seconds(self) -> float:
        return float(self.values.get("train_seconds", 0.0))

    def roles(self, name: str) -> dict[str, Score]:
        """Role -> the mean of its own rewards on held-out tasks, 'before' or 'after', for roles that have their own
        rewards."""
        of_roles: Mapping[str, Any] = self._held_out(name).get("roles") or {}
        found = {role: _score(each) for role, each in of_roles.items()}
        return {role: each for role, each in found.items() if each is not None}

    def _held_out(self, name: str) -> Mapping[str, Any]:
        held_out: Mapping[str, Any] = self.values.get("held_out") or {}
        return held_out.get(name) or {}

    def _score(self, name: str) -> Score | None:
        return _score(self._held_out(name))

    def __str__(self) -> str:
        lines = [f"run       {self.folder}"]
        if self.before is not None:
            lines.append(f"before    {self.before}")
        if self.after is not None:
            lines.append(f"after     {self.after}")
        if self.change is not None:
            lines.append(f"change    {self.change.format_change()}, by task{self._pairing(self.change.n)}")
        lines += self.details()
        if self.steps:
            lines.append(f"trained   {self.steps} steps in {self.train_seconds:.0f} s")
            lines.append(f"verdict   {self.verdict}" + (f": {self.verdict_reason}" if self.verdict_reason else ""))
        lines += [f"{each['severity']:<10}{each['kind']}: {_first_line(each)}" for each in self.findings]
        return "\n".join(lines)

    def _pairing(self, tasks: int) -> str:
        """Which tasks are compared, where that is not all of them."""
        scored = [each.n for each in (self.before, self.after) if each is not None]
        return "" if set(scored) == {tasks} else f", on the {tasks} tasks that have a score in both"

    def details(self) -> list[str]:
        """One line for each role that has its own rewards, and one for each way in which rollouts of a training
        failed."""
        lines = []
        for role, after in self.roles("after").items():
            before = self.roles("before").get(role)
            lines.append(f"role      {role}: {f'{before} before, ' if before else ''}{after} after")
        return [*lines, *(self._failures() if self.steps else ())]

    def _failures(self) -> list[str]:
        statuses: Mapping[str, int] = self.values.get("rollouts_by_status") or {}
        done: Mapping[str, str] = (self.values.get("failures") or {}).get("done") or {}
        failed = {status: count for status, count in statuses.items() if status != "ok" and count}
        return [
            f"failed    {count} {status.replace('_', ' ')}{f': {done[status]}' if status in done else ''}"
            for status, count in failed.items()
        ]


def _first_line(finding: Mapping[str, Any]) -> str:
    """A finding in short; the whole of it was shown when the run ended, and `check` tells it again."""
    return str(finding.get("what") or "").partition("\n")[0]


def _score(values: Mapping[str, Any] | None) -> Score | None:
    if not values:
        return None
    mean = values["mean"] if values["mean"] is not None else math.nan
    return Score(
        mean=mean,
        low=values["low"],
        high=values["high"],
        n=values["n"],
        seeds=values.get("seeds", 1),
        missing=values.get("missing", ""),
    )


def read(folder: Path) -> Report:
    """The report in a run's folder; SettingError if there is none."""
    path = folder / "report.json"
    try:
        return Report(folder, json.loads(path.read_text()))
    except FileNotFoundError:
        raise SettingError(
            f"{folder} has no report.json: the run did not finish, or this is not the folder of a run"
        ) from None
