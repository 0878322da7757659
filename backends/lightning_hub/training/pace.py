"""Pace: how long a step takes, what takes it, and when a run will end, told once and again when it changes.

The first question to any new model is how long this will take. It is answered twice: when the first rollouts are over,
from their durations alone, and when the first step is, from all its parts. Later steps correct it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import fmean, median

from lightning_hub.feed import Feed
from lightning_hub.rollout import Rollout
from lightning_hub.rollouts.plan import Plan
from lightning_sdk.hub.events import PaceEvent
from lightning_sdk.results.quantity import quantity

#: So many rollouts, or all of the round, are the first ones.
_FIRST_ROLLOUTS = 8
#: Steps whose median is the next one's duration.
_RECENT_STEPS = 10
#: What is told is told again once it is wrong by this factor.
_CHANGED = 1.25


class Pace:
    """The pace of one run. For the trainer's thread."""

    def __init__(self, plan: Plan, feed: Feed, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._feed, self._clock = plan.settings, feed, clock
        self.done = 0
        """The last step that was done."""
        self._evaluated = len(plan.held_out) * plan.settings.evaluation.seeds
        """Rollouts of an evaluation."""
        self._evaluations: list[float] = []
        """Seconds of those that were made."""
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=_RECENT_STEPS)
        """Seconds of the agent, of the engine and of the learner in the last steps."""
        self._told: float | None = None
        """Seconds of a step that were told last."""
        self._searches = plan.backend.search is not None
        self._waits = not (plan.check_only or plan.evaluate_only or plan.from_runs)
        """Whether the first rollouts are still to be told of; they are only where steps consist of rollouts."""

    def note_rollouts(self, ended: Sequence[float], of: int) -> None:
        """While a round runs: durations of the rollouts that ended, and how many there are. Told once."""
        if not self._waits or len(ended) < min(_FIRST_ROLLOUTS, of):
            return
        self._waits = False
        settings, each = self._settings, fmean(ended)
        at_once = settings.rollouts.concurrency
        first = f"the first rollouts took {_duration(each)} each, {min(at_once, of)} at once"
        evaluation = each * max(1.0, self._evaluated / at_once) if self._evaluated else 0.0
        if self._searches:
            self._tell_search(first, each * max(1.0, settings.prompts.budget_rollouts / at_once), evaluation)
            return
        size = settings.rollouts.tasks_per_step * settings.rollouts.group_size
        step = each * max(1.0, size / at_once)
        left = (settings.steps - self.done) * step + self._evaluations_left(self.done) * evaluation
        text = (
            f"{first}: a step of {quantity(size, 'rollout')} will take about {_duration(step)} and its update, and the "
            f"run at least {_duration(left)}"
        )
        self._feed.publish(PaceEvent(text=text, seconds=step, left=left, is_news=True))

    def _tell_search(self, first: str, search: float, evaluation: float) -> None:
        """`search`: seconds of all rollouts of its budget; `evaluation`: of one of the two on held-out tasks."""
        settings = self._settings
        if minutes := settings.prompts.budget_minutes:
            search = min(search, 60 * minutes)
        left = search + 2 * evaluation
        text = (
            f"{first}: if the search uses its {quantity(settings.prompts.budget_rollouts, 'rollout')}, the run will "
            f"take at least {_duration(left)}, and the time that the reflecting model needs"
        )
        self._feed.publish(PaceEvent(text=text, seconds=search / settings.steps, left=left, is_news=True))

    def note_evaluation(self, seconds: float) -> None:
        """The held-out tasks were measured."""
        self._evaluations.append(seconds)

    def note_step(self, step: int, rollouts: Sequence[Rollout], generate: float, learn: float) -> None:
        """A step is done: seconds until its rollouts were over, and those of what was learned from them."""
        share = engine_share(rollouts)
        self._waits, self.done = False, step
        self._steps.append((generate * (1 - share), generate * share, learn))
        agent, engine, learner = (median(each) for each in zip(*self._steps, strict=True))
        seconds = agent + engine + learner
        later = self._settings.steps - step
        evaluation = median(self._evaluations) if self._evaluations else 0.0
        left = later * seconds + self._evaluations_left(step) * evaluation
        changed = self._told is None or not seconds / _CHANGED <= self._told <= seconds * _CHANGED
        self._told = seconds if changed else self._told
        parts = {"the agent": agent, "the engine": engine, "the learner": learner}
        spent = ", ".join(f"{name} {_duration(each)}" for name, each in parts.items() if each)
        text = f"a step takes {_duration(seconds)} ({spent})"
        if later:
            text += f"; {quantity(later, 'more step')} will end at {self._time(left)}, in {_duration(left)}"
        event = PaceEvent(
            text=text,
            seconds=seconds,
            left=left,
            agent=agent,
            engine=engine,
            learner=learner,
            is_news=changed and later > 0,
        )
        self._feed.publish(event)

    def _evaluations_left(self, step: int) -> int:
        """Evaluations after this step; without held-out tasks they take no time."""
        every, steps = self._settings.evaluation.every, self._settings.steps
        between = (steps - 1) // every - step // every if every else 0
        return between + 1

    def _time(self, seconds: float) -> str:
        """The time of the day, so many seconds from now; with the date if that is another day."""
        now, end = time.localtime(self._clock()), time.localtime(self._clock() + seconds)
        return time.strftime("%H:%M" if now[:3] == end[:3] else "%H:%M on %Y-%m-%d", end)


def engine_share(rollouts: Sequence[Rollout]) -> float:
    """The part of the rollouts' time in which they waited for a model's reply. Calls side by side count once."""
    whole = sum(each.seconds for each in rollouts)
    if not whole:
        return 0.0
    waited = 0.0
    for rollout in rollouts:
        until = 0
        for call in rollout.calls:  # in the order in which they began
            waited += max(0, call.meta.ended_ns - max(until, call.meta.started_ns)) / 1e9
            until = max(until, call.meta.ended_ns)
    return min(1.0, waited / whole)


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
