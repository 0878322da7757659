"""Generality: whether what a run gained on its tasks is there on tasks that it never saw."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_hub.evaluation import HeldOut
from lightning_hub.findings import Finding, Severity
from lightning_hub.interval import Interval, difference
from lightning_hub.record import Record
from lightning_hub.trend import trend

#: Held-out tasks below which nothing is said, and how often the tasks of training were seen, at which they are few.
TASKS, SEEN = 20, 4.0
#: Part of the first score that is left, at which nothing is.
LOST = 0.1


def change(record: Record) -> Interval | None:
    """How the score on held-out tasks changed from the first evaluation to the last, task by task."""
    if (found := ends(record)) is None:
        return None
    first, last = (each.scores for each in found)
    both = [task for task in first if task in last]
    return difference([first[task] for task in both], [last[task] for task in both]) if both else None


def ends(record: Record) -> tuple[HeldOut, HeldOut] | None:
    """The first evaluation and the last, if they are of two steps."""
    first = min(record.evaluations, key=lambda each: each.step, default=None)
    last = max(reversed(record.evaluations), key=lambda each: each.step, default=None)
    return None if first is None or last is None or first.step == last.step else (first, last)


def worse(record: Record) -> Iterator[Finding]:
    """A held-out score that training has lowered."""
    found, both = change(record), ends(record)
    if found is None or both is None or found.high >= 0:
        return
    first, last = both
    lost = last.score.mean <= LOST * first.score.mean
    if found.n < TASKS and not lost:
        return
    rate = max(record.values("learning_rate"), default=1e-5)
    yield Finding(
        "held-out score worse",
        Severity.FATAL if lost else Severity.WARNING,
        f"the score on {found.n} held-out tasks went from {first.score.mean:.3g} to {last.score.mean:.3g}: "
        f"{found.mean:+.3f}, 95% interval {found.low:+.3f} to {found.high:+.3f}.",
        "What was trained made the agent worse at what it is measured by: the steps were too large, or the reward of "
        "training is not the reward of the held-out tasks.",
        f"Begin anew with a smaller rate: --set optimizer.learning_rate={rate / 10:.1e}; from which step on it falls, "
        "--set evaluation.every=5 shows.",
    )


def overfit(record: Record) -> Iterator[Finding]:
    """A reward that rises in training and a held-out score that does not."""
    found, rewards = change(record), record.values("reward_mean")
    if found is None or found.n < TASKS or len(rewards) < 3 or found.low > 0:
        return
    gain = trend(rewards)
    if not gain.rises:
        return
    tasks = len(record.tasks) or int(record.facts.get("tasks") or 0)
    groups = record.total("groups") / max(1, len(record.roles))
    seen = groups / tasks if tasks else 0.0
    few = seen >= SEEN
    bounds = "too few of them changed to tell" if found.method == "none" else (
        f"95% interval {found.low:+.3f} to {found.high:+.3f}")  # fmt: skip
    yield Finding(
        "held-out score not better",
        Severity.WARNING,
        f"the reward in training rose from {gain.first:.3g} to {gain.last:.3g}, and the score on {found.n} held-out "
        f"tasks is not shown to be better: {found.mean:+.3f}, {bounds}.",
        f"The {tasks} tasks were seen {seen:.0f} times each: what was learned may be these tasks by heart." if few else
        "There may be too few held-out tasks to see it, they may be of another kind, or the model only became surer "
        "of answers that it gave greedily before.",
        "Take more tasks, or stop earlier: --set evaluation.every=5 shows when." if few else
        f"--set evaluation.tasks={4 * found.n}, with as many held-out tasks, and train longer.",
    )  # fmt: skip
