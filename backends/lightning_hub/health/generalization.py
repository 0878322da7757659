"""Generalization: whether what a run gained on its tasks also shows on tasks that it never saw."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.evaluation.judgement import NOT_MEASURED, Judgement, judge
from lightning_hub.health.remedy import other_rate, sentence, to_set, with_setting
from lightning_hub.health.run_record import RunRecord
from lightning_hub.health.scale import scale_of
from lightning_hub.statistics.interval import interval
from lightning_hub.statistics.trend import Trend, trend
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.results.score import Interval

#: Fewest held-out tasks for a finding, and how often training tasks must have been seen to call them few.
TASKS, SEEN = 20, 4.0
#: Share of the way down to the lowest reward seen from which on a score counts as lost.
LOST = 0.9
#: Greatest share of the gain in training that held-out tasks may show and still count as not having gained.
SHOWN = 0.5


def change(record: RunRecord) -> Interval | None:
    """How the score on held-out tasks changed from the first evaluation to the last, task by task."""
    found = judgement(record)
    return None if found is None else found.change


def judgement(record: RunRecord) -> Judgement | None:
    """The judgement of the last evaluation against the first; None if they cannot be compared."""
    found = first_and_last(record)
    judged = None if found is None else judge(*found)
    return None if judged is None or judged.verdict == NOT_MEASURED else judged


def first_and_last(record: RunRecord) -> tuple[HeldOut, HeldOut] | None:
    """The first and the last evaluation, if they were made after different steps."""
    first = min(record.evaluations, key=lambda each: each.step, default=None)
    last = max(reversed(record.evaluations), key=lambda each: each.step, default=None)
    return None if first is None or last is None or first.step == last.step else (first, last)


def score_of(evaluation: HeldOut) -> float:
    """The mean score of an evaluation that was judged, so that at least one task has a score."""
    assert evaluation.score.mean is not None, evaluation.name
    return evaluation.score.mean


def check_held_out_worse(record: RunRecord) -> Iterator[Finding]:
    """A held-out score that training has lowered."""
    found, both = change(record), first_and_last(record)
    if found is None or both is None or not found.is_below(0):
        return
    first, last = (score_of(each) for each in both)
    lost = _lost_share(record, *both) > LOST
    if found.n < TASKS and not lost:
        return
    smaller = with_setting("start over with a smaller rate", other_rate(record, 0.1))
    fell = with_setting("see at which step it begins to fall", to_set(record.settings, "evaluation.every", 5))
    yield Finding(
        kind="held-out score worse",
        severity=Severity.FATAL if lost else Severity.WARNING,
        what=f"the score on {found.n} held-out tasks went from {first:.3g} to {last:.3g}: {_format_change(found)}.",
        cause="Training made the agent worse at what it is measured by: the steps were too large, or the reward of "
        "training is not the reward of the held-out tasks.",
        remedy=sentence("; ".join(way for way in (smaller, fell) if way)),
    )


def _lost_share(record: RunRecord, first: HeldOut, last: HeldOut) -> float:
    """The share lost of the way from the lowest reward that was seen up to the first score."""
    earned = [value for each in record.scored for value in each.rewards.values()]
    seen = scale_of([*first.scores.values(), *last.scores.values(), *earned])
    began, ended = score_of(first), score_of(last)
    floor = min(ended, seen.low if seen is not None else math.inf)
    return (began - ended) / (began - floor) if began > floor else 0.0


def check_overfitting(record: RunRecord) -> Iterator[Finding]:
    """A held-out score that does not rise with the reward of training, and lags behind it."""
    found, both, rewards = change(record), first_and_last(record), record.values("reward_mean")
    if found is None or both is None or found.n < TASKS or len(rewards) < 3:
        return
    gain, last = trend(rewards), score_of(both[1])
    most = _largest_gain(*both) if found.high is None else found.high
    # A model that does as well there as in training has nothing to catch up with.
    if not gain.rises or most >= SHOWN * (gain.last - gain.first) or not last < gain.last:
        return
    yield _not_better(record, found, gain)


def _largest_gain(first: HeldOut, last: HeldOut) -> float:
    """The largest gain that is possible if the change has no interval: the most tasks that may have risen, times the
    scale of their scores."""
    both = [(value, last.scores[task]) for task, value in first.scores.items() if task in last.scores]
    seen = scale_of([value for pair in both for value in pair])
    rose = interval([float(after > before) for before, after in both])
    return math.inf if seen is None or rose.high is None else rose.high * (seen.high - seen.low)


def _not_better(record: RunRecord, found: Interval, gain: Trend) -> Finding:
    tasks = len(record.tasks) or int(record.facts.get("tasks") or 0)
    groups = record.total("groups") / max(1, len(record.roles))
    seen = groups / tasks if tasks else 0.0
    few = seen >= SEEN
    every, more = (
        to_set(record.settings, f"evaluation.{name}", value) for name, value in (("every", 5), ("tasks", 4 * found.n))
    )
    return Finding(
        kind="held-out score not better",
        severity=Severity.WARNING,
        what=f"the reward in training rose from {gain.first:.3g} to {gain.last:.3g}, and the score on {found.n} "
        f"held-out tasks did not rise with it: {_format_change(found)}.",
        cause=f"The {tasks} tasks were seen {seen:.0f} times each: the model may have learned them by heart."
        if few
        else "There may be too few held-out tasks to see it, they may be of another kind, or the model only became "
        "more certain of answers that it already gave greedily.",
        remedy=f"Use more tasks, or stop earlier{f': {every} shows when' if every else ''}."
        if few
        else f"Use more held-out tasks{f' ({more})' if more else ''}, and train longer.",
    )


def _format_change(found: Interval) -> str:
    """A change with its interval, in a sentence."""
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f}, no interval: {found.missing}"
    return f"{found.mean:+.3f}, 95% interval {found.low:+.3f} to {found.high:+.3f}"
