"""Judgement: whether a score on held-out tasks is better than the one before training, task by task, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_hub.evaluation.evaluation import BySeed, HeldOut, mean
from lightning_hub.statistics.interval import difference
from lightning_hub.statistics.looks import Look
from lightning_hub.statistics.reward_range import RangeSource, RewardRange, reward_range
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.score import Interval

NOT_SHOWN = "not shown to be better"
NOT_MEASURED = "not measured"

Pair = tuple[float, float]
"""A task's score before and after."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What two evaluations say about the training between them."""

    verdict: str
    """'better', 'worse', 'not shown to be better', or 'not measured'."""
    reason: str = ""
    """What the verdict depends on, or why it is not another; '' if the interval says it all."""
    change: Interval | None = None
    """The paired difference over the tasks and seeds that have a score in both; None if there are none."""

    def __str__(self) -> str:
        return f"{self.verdict} ({self.reason})" if self.reason else self.verdict


def judge(before: HeldOut | None, after: HeldOut | None) -> Judgement:
    """Judge by the interval of the task-by-task difference, which allows for all comparisons that the run has made.

    'better' needs an interval above 0 that holds for scores of any shape within their range: the range that is set,
    else the usual one, else the values seen and more on either side.
    """
    if before is None or after is None or not before.score.n or not after.score.n:
        return Judgement(NOT_MEASURED, "a held-out score before or after training is missing")
    if before.temperature != after.temperature:
        return Judgement(
            NOT_MEASURED,
            f"before, the held-out tasks were run at temperature {before.temperature:g}, "
            f"after training at {after.temperature:g}",
        )
    pairs = pairs_of(before.scores_by_seed, after.scores_by_seed)
    if not pairs:
        return Judgement(NOT_MEASURED, "no task was run both before and after training")
    within = reward_range([*before.rollout_scores, *after.rollout_scores], after.range_given, after.trained)
    found = _change(pairs, after.look, within)
    if after.kept:
        return Judgement(NOT_SHOWN, "the texts are kept, and so is their score", found)
    if found.is_above(0) or found.is_below(0):
        reason = _join(_condition(within), _looks(after.look))
        return Judgement("better" if found.is_above(0) else "worse", reason, found)
    why = found.missing or _join(_too_few(pairs, after.look, within), _looks(after.look))
    return Judgement(NOT_SHOWN, why, found)


def verdict(before: HeldOut | None, after: HeldOut | None) -> str:
    """The verdict alone, see `Judgement`."""
    return judge(before, after).verdict


def change(before: HeldOut | None, after: HeldOut | None) -> Interval | None:
    """The change alone, see `Judgement`."""
    return judge(before, after).change


def change_of_roles(before: HeldOut | None, after: HeldOut | None) -> dict[str, Interval]:
    """Role -> the paired difference of what it earned by itself, over the range that its rewards appear to have."""
    if before is None or after is None or before.temperature != after.temperature:
        return {}
    both = {
        role: pairs_of(before.roles[role].by_seed, each.by_seed)
        for role, each in after.roles.items()
        if role in before.roles
    }
    return {role: _change(pairs, after.look, None) for role, pairs in both.items() if pairs}


def pairs_of(before: BySeed, after: BySeed) -> list[Pair]:
    """Each task's means over the seeds with a score in both, for tasks that have such a seed."""
    found = []
    for task in before:
        seeds = zip(before[task], after.get(task, ()), strict=False)
        both = [(x, y) for x, y in seeds if x is not None and y is not None]
        if both:
            found.append((mean([x for x, _ in both]), mean([y for _, y in both])))
    return found


def _change(pairs: Sequence[Pair], look: Look, within: RewardRange | None) -> Interval:
    return difference([x for x, _ in pairs], [y for _, y in pairs], look.level, within)


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _looks(look: Look) -> str:
    return f"the interval allows for {look.number} looks at the held-out tasks" if look.number > 1 else ""


def _condition(within: RewardRange | None) -> str:
    if within is None or within.source != RangeSource.SEEN:
        return ""
    return f"if the reward stays within {within}: the values seen lie well inside it, and no range is set"


def _too_few(pairs: Sequence[Pair], look: Look, within: RewardRange | None) -> str:
    """Why an interval holds 0, if the number of tasks or the assumed range is the reason; else ''."""
    tasks = quantity(len(pairs), "task is", "tasks are")
    if all(x == y for x, y in pairs):
        return "no task's score changed"
    if not difference([0.0] * len(pairs), [1.0] * len(pairs), look.level).is_above(0):
        return f"{tasks} too few: even if every one had gone from wrong to right, chance could explain it"
    if within is None or within.source == RangeSource.SET:
        return ""
    scores = [score for pair in pairs for score in pair]
    narrow = RewardRange(min(scores), max(scores), RangeSource.SET)
    if not _change(pairs, look, narrow).is_above(0):
        return ""
    return (
        f"{tasks} too few for a reward of {within}; if its range is narrower, set evaluation.reward_low and "
        "evaluation.reward_high"
    )
