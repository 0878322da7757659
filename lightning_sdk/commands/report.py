"""The report of a run, as `train` and `evaluate` return it and `report.json` holds it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.commands.notebook import read_figure, to_html
from lightning_sdk.errors import SettingError
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_files import REPORT, read_object
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.score import Interval


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
        change = self._content.change
        return None if change is None else _score(change)

    @property
    def verdict(self) -> str:
        """'better', 'worse', 'not shown to be better' or 'not measured'."""
        return self._content.verdict or "not measured"

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What is wrong, as `check` reports it: each has kind, severity ('fatal' or 'warning'), what, cause, remedy."""
        return list(self.values.get("findings") or ())

    @property
    def verdict_reason(self) -> str:
        """What the verdict rests on, or why it is not a better one; '' if the interval of the change makes it clear."""
        return self._content.verdict_reason

    @property
    def steps(self) -> int:
        return self._content.steps

    @property
    def train_seconds(self) -> float:
        return self._content.train_seconds

    def roles(self, name: str) -> dict[str, Score]:
        """Role -> mean reward of that role on held-out tasks, 'before' or 'after' training. Roles without rewards by
        role are left out."""
        return scores_of_roles(self._content, name)

    @property
    def _content(self) -> RunReport:
        return RunReport.from_dict(self.values)

    def _score(self, name: str) -> Score | None:
        found = self._content.held_out.get(name)
        return None if found is None else _score(found.score, found.seeds)

    def _repr_html_(self) -> str:
        """What a notebook shows: the curve with its interval and the held-out scores, and the report below."""
        return to_html(read_figure(self.folder), str(self))

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
            lines.append(f"trained   {self._training()}")
            lines.append(f"verdict   {self.verdict}" + (f": {self.verdict_reason}" if self.verdict_reason else ""))
        lines += [f"{each.severity:<10}{each.kind}: {_first_line(each)}" for each in self._content.findings]
        lines += [f"next      {each}" for each in next_commands(self._content, str(self.folder))]
        return "\n".join(lines)

    def _training(self) -> str:
        """How much was done."""
        search, phases = self.values.get("search"), self._content.phases
        if not self._content.is_search:
            turns = f" of {quantity(len(phases), 'phase')}" if phases else ""
            return f"{quantity(self.steps, 'step')}{turns} in {self.train_seconds:.0f} s"
        if not search:
            return f"{quantity(self.steps, 'round')} of a search that is not over, in {self.train_seconds:.0f} s"
        spent = search["spent"]
        rounds, rollouts = quantity(search["rounds"], "round"), quantity(spent["rollouts"], "rollout")
        return f"{rounds} of a search with {rollouts} in {spent['seconds']:.0f} s"

    @property
    def texts(self) -> dict[str, str]:
        """Name -> text of each instruction, as chosen where prompts were tuned; the agent's own if none is better."""
        return dict((self.values.get("search") or {}).get("texts") or {})

    def _pairing(self, tasks: int) -> str:
        """Which tasks are compared, where that is not all of them."""
        scored = [each.n for each in (self.before, self.after) if each is not None]
        return "" if set(scored) == {tasks} else f", on the {tasks} tasks that have a score in both"

    def details(self) -> list[str]:
        """One line for each role that has its own rewards, one for each way in which rollouts of a training failed,
        and for a search for prompts what the chosen candidate's selection score is worth."""
        return detail_lines(self._content)


def scores_of_roles(report: RunReport, name: str) -> dict[str, Score]:
    """As `Report.roles`."""
    found = report.held_out.get(name)
    return {} if found is None else {role: _score(each) for role, each in found.roles.items()}


def detail_lines(report: RunReport) -> list[str]:
    """As `Report.details`."""
    lines, befores = list[str](), scores_of_roles(report, "before")
    for role, after in scores_of_roles(report, "after").items():
        before = befores.get(role)
        lines.append(f"role      {role}: {f'{before} before, ' if before else ''}{after} after")
    return [*lines, *(_failures(report) if report.steps else ()), *_phase_lines(report), *_selection_lines(report)]


def next_commands(report: RunReport, run: str) -> list[str]:
    """What a user types after a search for prompts that chose other texts than the agent's own."""
    search = report.search
    if not search or search["nothing"]:
        return []
    named = shlex.quote(run)
    return [f"lightning-sdk prompts diff {named}", f"lightning-sdk prompts promote {named}"]


def _phase_lines(report: RunReport) -> Iterator[str]:
    """What phases of each kind gained together, and what that cost."""
    for kind in dict.fromkeys(str(each["kind"]) for each in report.phases):
        own = [each for each in report.phases if each["kind"] == kind]
        kept = [each for each in own if each.get("undone_to") is None]
        gain, rollouts = sum(each["gain"] for each in kept), sum(each["rollouts"] for each in own)
        undone = f", {len(own) - len(kept)} of which were undone," if len(kept) < len(own) else ""
        phases = f"{quantity(len(own), 'phase')}{undone}"
        yield f"{kind:<10}{gain:+.3f} in {phases} with {quantity(rollouts, 'rollout')}, on the tasks that compare them"


def _selection_lines(report: RunReport) -> Iterator[str]:
    """The score that a candidate was chosen for, and how much of it can be luck."""
    search = report.search
    if not search:
        return
    if search["nothing"]:
        yield f"texts     unchanged: {search['nothing']}"
        return
    selection, tasks = search["selection"], search["tasks"]["selection"]
    before, after = ("-" if selection[each] is None else f"{selection[each]:.3f}" for each in ("before", "after"))
    yield f"selection {before} before, {after} after, on the {tasks} tasks that the candidate was chosen on"
    if selection["compared"] > 1:
        yield (
            f"luck      the best of {selection['compared']} equally good candidates would seem "
            f"{selection['luck']:.3f} better than they are on those tasks; the held-out score has no such luck"
        )


def _failures(report: RunReport) -> list[str]:
    done = report.failures.done
    failed = {status: count for status, count in report.rollouts_by_status.items() if status != "ok" and count}
    return [
        f"failed    {count} {status.replace('_', ' ')}{f': {done[status]}' if status in done else ''}"
        for status, count in failed.items()
    ]


def _score(found: Interval, seeds: int = 1) -> Score:
    """As a user gets it."""
    mean = math.nan if found.mean is None else found.mean
    return Score(mean=mean, low=found.low, high=found.high, n=found.n, seeds=seeds, missing=found.missing)


def _first_line(finding: Finding) -> str:
    """A finding in short; the whole of it was shown when the run ended, and `check` tells it again."""
    return finding.what.partition("\n")[0]


def read(folder: Path) -> Report:
    """The report in a run's folder; SettingError if there is none."""
    found = read_object(folder / REPORT)
    if found is None:
        raise SettingError(f"{folder} has no report.json: the run did not finish, or this is not the folder of a run")
    return Report(folder, found)
