"""The record of a run: what its folder says about it, also while it runs and if an older version wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_hub.evaluation.evaluation import HeldOut, latest_evaluations
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.rollouts.archive import Archive
from lightning_hub.storage.attempts import StoredAttempt
from lightning_hub.trajectories.rewards import total_reward
from lightning_sdk.errors import SettingError
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.run_files import (
    CONFIG,
    EVALUATIONS,
    STEPS,
    RunConfig,
    StepMetrics,
    read_config,
    read_findings,
    read_lines,
    read_report,
)
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.settings import Credit, Settings
from lightning_sdk.trace.call import Status

#: The name that metrics have for calls without a role.
NO_ROLE = "none"
#: About how many rollouts are read with their calls: whole groups, evenly over the run.
_ROLLOUTS = 600
#: How many failed rollouts are read with their calls.
_FAILED = 20


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """What one finished training rollout earned."""

    entry: StoredAttempt
    step: int
    rewards: Mapping[str, float]
    """Role, by its name in metrics -> reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run left in its folder."""

    name: str
    """The run's folder as a user would type it, such as 'runs/NAME'."""
    settings: Settings
    steps: Sequence[StepMetrics]
    """Those of each step, in order."""
    evaluations: Sequence[HeldOut] = ()
    """The last one of each name, in order."""
    first_findings: Sequence[Finding] = ()
    """What was wrong with the first rollouts."""
    status: str = "unfinished"
    """'finished', 'stopped' or 'failed', or 'unfinished' for a run that is still running or was killed."""
    error: str = ""
    """Why it failed."""
    stored: bool = False
    """It learns from the rollouts of earlier runs, so its rewards cannot change."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What was decided where settings left it open."""
    scored: Sequence[ScoredRollout] = ()
    """Training rollouts that succeeded."""
    failed: Sequence[StoredAttempt] = ()
    """Training rollouts that failed."""
    failed_sample: Sequence[Rollout] = ()
    """Some of these, with their calls."""
    sample: Sequence[Rollout] = ()
    """Training rollouts that succeeded, with their calls: whole groups, evenly over the run."""
    tasks: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Task id -> task, of training."""
    before: Sequence[Rollout] = ()
    """Rollouts of the first evaluation."""
    after: Sequence[Rollout] = ()
    """Rollouts of the last one, if it was made with another version."""

    @property
    def roles(self) -> list[str]:
        """Roles that have metrics, by their names in metrics."""
        names = (name.partition("/") for step in self.steps for name in step)
        return list(dict.fromkeys(role for name, _, role in names if name in {"reward_mean", "rows"} and role))

    def series(self, name: str) -> list[tuple[int, float]]:
        """Step and value of a metric, for the steps that have it."""
        return [
            (int(step["step"] or 0), float(value))
            for step in self.steps
            if (value := step.get(name)) is not None and math.isfinite(value)
        ]

    def values(self, name: str) -> list[float]:
        """The values of a metric, for the steps that have it."""
        return [value for _, value in self.series(name)]

    def series_of(self, role: str, name: str) -> list[tuple[int, float]]:
        """As `series`, of this role; of all roles together where the metric is not kept by role."""
        return self.series(f"{name}/{role}") or self.series(name)

    def values_of(self, role: str, name: str) -> list[float]:
        """As `values`, of this role; of all roles together where the metric is not kept by role."""
        return [value for _, value in self.series_of(role, name)]

    def credit_of(self, role: str) -> Credit:
        """How a role, by its name in metrics, earns."""
        return self.settings.credit_of(role_name(role))

    def total(self, name: str) -> float:
        return sum(self.values(name))

    def rollouts_by_step(self, role: str) -> dict[int, float]:
        """Step -> number of rollouts in which the role spoke; if an older version did not count them, was trained."""
        counted = dict(self.series(f"rollouts/{role}"))
        if counted or self.credit_of(role).schedule != "always":
            return counted
        each, missing = (dict(self.series(f"{name}/{role}")) for name in ("rows_per_rollout", "rewards_missing"))
        return {
            step: rows / each[step] + missing.get(step, 0.0)
            for step, rows in self.series(f"rows/{role}")
            if each.get(step)
        }

    def groups(self, role: str) -> list[list[ScoredRollout]]:
        """The rollouts of each group with a reward for `role`, if there are at least two, in the order of steps."""
        found: dict[str, list[ScoredRollout]] = {}
        for each in self.scored:
            if role in each.rewards:
                found.setdefault(each.entry.group, []).append(each)
        return sorted((each for each in found.values() if len(each) > 1), key=lambda each: each[0].step)


def role_name(role: str) -> str:
    """A role by its own name instead of that in metrics: '' for calls without a role."""
    return "" if role == NO_ROLE else role


def describe_role(role: str) -> str:
    """A role by its name in metrics, as part of a sentence."""
    return "calls without a role" if role == NO_ROLE else f"the role {role}"


def read_record(folder: Path) -> RunRecord:
    """The record of the run in this folder. Raises SettingError if there is none, or if no step is finished."""
    config, first = read_config(folder), read_findings(folder)
    report, steps = read_report(folder) or RunReport(), read_lines(folder / STEPS).whole
    if config is None and first is None:
        raise SettingError(f"{folder} is not a run folder: it has no {CONFIG}")
    if not steps and first is None and report.status != "failed":
        raise SettingError(f"{folder}: no step is finished yet, so there is nothing to check; try again later")
    config = config or RunConfig()
    record = RunRecord(
        name=str(Path(folder.parent.name, folder.name)),
        settings=read_settings(config.settings or {}),
        steps=steps,
        evaluations=latest_evaluations(read_lines(folder / EVALUATIONS).whole),
        first_findings=first or (),
        status=report.status or "unfinished",
        error=report.error,
        stored=bool(config.from_runs),
        facts=config.facts,
    )
    if not (folder / "hub.sqlite").is_file():
        return record
    with Archive(folder, rescored=False) as archive:
        return _with_rollouts(record, archive)


def _with_rollouts(record: RunRecord, archive: Archive) -> RunRecord:
    last = max((int(step["step"] or 0) for step in record.steps), default=1)
    # What a resumed run does again, or what runs ahead of the learner, belongs to no finished step.
    entries = [entry for entry in archive.entries("train") if entry.step is not None and entry.step <= last]
    ok = [entry for entry in entries if entry.status == Status.OK]
    failed = [entry for entry in entries if entry.status != Status.OK]
    roles = record.roles
    first, end = _first_and_last(record.evaluations, archive.entries("evaluate"))
    return replace(
        record,
        scored=[score_entry(entry, archive.rewards(entry), roles, record.settings) for entry in ok],
        failed=failed,
        failed_sample=list(archive.rollouts(failed[:_FAILED])),
        sample=list(archive.rollouts(_sample_groups(ok))),
        tasks=archive.tasks(entries),
        before=list(archive.rollouts(first)),
        after=list(archive.rollouts(end)),
    )


def score_entry(
    entry: StoredAttempt, given: tuple[EarnedReward, ...], roles: Sequence[str], settings: Settings
) -> ScoredRollout:
    """What a rollout with these rewards earned for each of these roles, by their names in metrics."""
    bare = Rollout(
        id=entry.id,
        task_id=entry.task_id,
        group=entry.group,
        mode=entry.mode,
        attempt=entry.attempt,
        status=entry.status,
        error=entry.error,
        seconds=0.0,
        rewards=given,
    )
    names = {role: role_name(role) for role in roles}
    values = {role: total_reward(bare, name, settings.credit_of(name)) for role, name in names.items()}
    return ScoredRollout(entry, entry.step or 0, {role: value for role, value in values.items() if value is not None})


def _sample_groups(entries: Sequence[StoredAttempt]) -> list[StoredAttempt]:
    """Whole groups, evenly over the run, with about `_ROLLOUTS` rollouts in all."""
    groups: dict[str, list[StoredAttempt]] = {}
    for entry in sorted(entries, key=lambda each: each.step or 0):
        groups.setdefault(entry.group, []).append(entry)
    every = max(1, math.ceil(len(entries) / _ROLLOUTS))
    return [entry for group in list(groups.values())[::every] for entry in group]


def _first_and_last(
    evaluations: Sequence[HeldOut], entries: Iterable[StoredAttempt]
) -> tuple[list[StoredAttempt], list[StoredAttempt]]:
    """Rollouts of the first and of the last evaluation; none if both belong to the same step."""
    in_order = sorted(evaluations, key=lambda each: each.step)
    if not in_order or in_order[0].step == in_order[-1].step:
        return [], []
    by_name: dict[str, list[StoredAttempt]] = {}
    for entry in entries:
        by_name.setdefault(entry.group.rpartition("-")[0], []).append(entry)
    return by_name.get(in_order[0].name, []), by_name.get(in_order[-1].name, [])


def read_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of a run, without those that this version does not have."""
    try:
        return Settings.from_dict(values)
    except SettingError:
        known = Settings().flat()
        flat = {name: value for name, value in _flat(values) if name in known}
    try:
        return Settings.from_dict(flat)
    except SettingError:
        return Settings()


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
