"""Evaluation: rollouts on held-out tasks as scores by task and seed.

A task's score is the mean over its seeds, and intervals are computed over tasks, not over rollouts. A failed rollout
has no score: it is left out and counted, and so is a task whose rollouts all failed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lightning_hub.diagnosis.examples import sample_rollouts
from lightning_hub.rollout import Assignment, Rollout
from lightning_hub.statistics.interval import interval
from lightning_hub.statistics.looks import PLANNED_LOOK, Look
from lightning_hub.statistics.reward_range import TrainingRange, reward_range
from lightning_hub.trajectories.reasons import count_reasons
from lightning_hub.trajectories.rewards import score, total_reward
from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.results.score import HeldOutScore, Interval, RewardReason, read_reasons
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

BySeed = Mapping[str, Sequence[float | None]]
"""Task -> score of each seed, None where that rollout has none."""

#: How a rollout that ended ok without a reward is counted.
_UNREWARDED = "no_reward"


@dataclass(frozen=True, slots=True)
class RoleScore:
    """What one role earned by itself on held-out tasks."""

    score: Interval
    by_seed: BySeed


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The score on held-out tasks at one moment."""

    name: str
    """'before', 'after', 'step-N', or 'prompted'."""
    step: int
    score: Interval
    """Over tasks."""
    failed: int = 0
    """Rollouts without a score, which the interval leaves out."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Task -> mean over its seeds, so that two measurements can be compared task by task; may be empty."""
    by_seed: BySeed = field(default_factory=dict)
    """The scores that `scores` are the means of; empty if an older version wrote it."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Status -> number of rollouts without a score."""
    roles: Mapping[str, RoleScore] = field(default_factory=dict)
    """Role -> what it earned by itself, for roles with rewards of their own."""
    seeds: int = 1
    """Rollouts of each task."""
    temperature: float = 0.0
    """The sampling temperature."""
    look: Look = PLANNED_LOOK
    """Which comparison with the score before training this is."""
    planned_step: int = 0
    """The step at which the run was planned to end when this was measured."""
    range_given: tuple[float, float] | None = None
    """The lowest and the highest possible score, if the settings give them."""
    trained: TrainingRange | None = None
    """Scores of the training rollouts before this."""
    kept: bool = False
    """Whether it is the score before, because nothing was changed that could have changed it."""
    reasons: Sequence[RewardReason] = field(default_factory=list)
    """The most frequent reasons of the rewards, if they had any."""
    samples: Sequence[RolloutSample] = ()
    """A few of its rollouts; not kept, since the run's folder has all of them."""

    @property
    def scores_by_seed(self) -> BySeed:
        """`by_seed`, also if an older version wrote the evaluation."""
        return self.by_seed or {task: (value,) for task, value in self.scores.items()}

    @property
    def rollout_scores(self) -> list[float]:
        """Scores of single rollouts."""
        return [value for values in self.scores_by_seed.values() for value in values if value is not None]

    def summary(self) -> HeldOutScore:
        """As in report.json: without single tasks."""
        return HeldOutScore(
            step=self.step,
            score=self.score,
            seeds=self.seeds,
            temperature=self.temperature,
            failed=self.failed,
            failures=dict(self.failures),
            look=asdict(self.look),
            roles={role: each.score for role, each in self.roles.items()},
            reasons=self.reasons,
        )

    def as_line(self) -> dict[str, Any]:
        """As in evaluations.jsonl: everything."""
        failed = {task: sum(value is None for value in values) for task, values in self.by_seed.items()}
        return {
            "name": self.name,
            **self.summary().as_dict(),
            "planned_step": self.planned_step,
            "kept": self.kept,
            "range_given": self.range_given,
            "trained": asdict(self.trained) if self.trained else None,
            "scores": dict(self.scores),
            "by_seed": {task: list(values) for task, values in self.by_seed.items()},
            "failed_by_task": {task: count for task, count in failed.items() if count},
            "roles": {
                role: {**each.score.as_dict(), "by_seed": {task: list(values) for task, values in each.by_seed.items()}}
                for role, each in self.roles.items()
            },
        }

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> HeldOut:
        """The reverse of `as_line`; what older versions did not write is empty."""
        return cls(
            name=str(line["name"]),
            step=int(line["step"]),
            score=Interval.from_dict(line),
            failed=int(line.get("failed", 0)),
            scores=line.get("scores") or {},
            by_seed=line.get("by_seed") or {},
            failures=line.get("failures") or {},
            roles={
                role: RoleScore(Interval.from_dict(each), each.get("by_seed") or {})
                for role, each in (line.get("roles") or {}).items()
            },
            seeds=int(line.get("seeds", 1)),
            temperature=float(line.get("temperature", 0.0)),
            look=Look(**(line.get("look") or {})),
            planned_step=int(line.get("planned_step", 0)),
            kept=bool(line.get("kept", False)),
            range_given=_pair(line.get("range_given")),
            trained=TrainingRange(**line["trained"]) if line.get("trained") else None,
            reasons=read_reasons(line),
        )


def latest_evaluations(lines: Iterable[Mapping[str, Any]]) -> list[HeldOut]:
    """The last evaluation of each name in evaluations.jsonl, in order, without those that a resume has cut away."""
    found = {str(line["name"]): line for line in lines if not line.get("cut")}
    return [HeldOut.from_line(line) for line in found.values()]


def measure(
    name: str,
    step: int,
    assignments: Sequence[Assignment],
    rollouts: Sequence[Rollout],
    settings: Settings,
    *,
    look: Look = PLANNED_LOOK,
    trained: TrainingRange | None = None,
) -> HeldOut:
    """The scores of an evaluation's rollouts. `assignments` has those of each task in the order of seeds; `look` and
    `trained` as in `HeldOut`."""
    ran = {each.id: each for each in rollouts}
    names = _names(assignments)
    of_task: dict[str, list[Rollout | None]] = {}
    for each in assignments:
        of_task.setdefault(names[each.group], []).append(ran.get(each.id))
    by_seed = {task: [_score(each, settings) for each in tried] for task, tried in of_task.items()}
    failures = Counter(
        _failure(each)
        for task, tried in of_task.items()
        for each, value in zip(tried, by_seed[task], strict=True)
        if value is None
    )
    scores, given = _means(by_seed), settings.evaluation.reward_range
    seen = [value for values in by_seed.values() for value in values if value is not None]
    return HeldOut(
        name=name,
        step=step,
        score=interval(list(scores.values()), within=reward_range(seen, given, trained)),
        failed=failures.total(),
        scores=scores,
        by_seed=by_seed,
        failures=dict(failures),
        roles={role: _role_score(role, of_task, settings) for role in _rewarded_roles(rollouts)},
        seeds=settings.evaluation.seeds,
        temperature=settings.evaluation.temperature,
        look=look,
        planned_step=settings.steps,
        range_given=given,
        trained=trained,
        reasons=count_reasons([each for each in rollouts if each.status == Status.OK]),
        samples=sample_rollouts(
            [each for each in rollouts if _score(each, settings) is not None],
            settings,
            {each.task_id: each.task for each in assignments},
        ),
    )


def _names(assignments: Sequence[Assignment]) -> dict[str, str]:
    """Group -> the name of its task, which depends on the task's content; '#2' for the second of equal tasks."""
    names, seen = dict[str, str](), Counter[int]()
    for each in assignments:
        if each.group not in names:
            seen[each.task_id] += 1
            names[each.group] = f"{each.task_id}" + (f"#{seen[each.task_id]}" if seen[each.task_id] > 1 else "")
    return names


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)  # the same values in another order have the same mean, so no difference


def _means(by_seed: BySeed) -> dict[str, float]:
    known = {task: [value for value in values if value is not None] for task, values in by_seed.items()}
    return {task: mean(values) for task, values in known.items() if values}


def _score(rollout: Rollout | None, settings: Settings) -> float | None:
    if rollout is None or rollout.status != Status.OK:
        return None
    value = score(rollout, settings)
    return value if math.isfinite(value) else None


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    return (float(values[0]), float(values[1])) if values else None


def _failure(rollout: Rollout | None) -> str:
    if rollout is None:
        return str(Status.INFRASTRUCTURE_ERROR)
    return _UNREWARDED if rollout.status == Status.OK else str(rollout.status)


def _rewarded_roles(rollouts: Sequence[Rollout]) -> list[str]:
    return sorted({reward.role for each in rollouts for reward in each.rewards if reward.role})


def _role_score(role: str, of_task: Mapping[str, Sequence[Rollout | None]], settings: Settings) -> RoleScore:
    own = replace(settings.credit_of(role), signal="own")
    by_seed = {
        task: [
            total_reward(each, role, own) if each is not None and each.status == Status.OK else None for each in tried
        ]
        for task, tried in of_task.items()
    }
    return RoleScore(interval(list(_means(by_seed).values())), by_seed)
