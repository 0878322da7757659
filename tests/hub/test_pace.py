"""How long a training takes: told after its first rollouts, after its first step, and when that was wrong."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from lightning_hub.backend import BackendSpec
from lightning_hub.feed import Feed
from lightning_hub.rollout import Rollout
from lightning_hub.rollouts.plan import Plan, find_backend
from lightning_hub.training.pace import Pace, engine_share
from lightning_sdk.hub.events import PaceEvent
from lightning_sdk.settings import Settings
from tests.hub import spoken

NOON = time.mktime((2026, 12, 1, 12, 0, 0, 0, 0, -1))
SECOND = 1_000_000_000


def rollout(*calls: tuple[float, float], seconds: float = 10.0) -> Rollout:
    """One with calls from and to these seconds."""
    made = [spoken.call(number) for number in range(len(calls))]
    timed = [
        replace(each, meta=each.meta._replace(started_ns=int(begin * SECOND), ended_ns=int(end * SECOND)))
        for each, (begin, end) in zip(made, calls, strict=True)
    ]
    return replace(spoken.rollout(1, *timed), seconds=seconds)


def make(held_out: int = 0, *, plan: dict[str, Any] | None = None, **settings: Any) -> tuple[Pace, Feed]:
    chosen = {"steps": 11, "rollouts.tasks_per_step": 16, "rollouts.group_size": 8, "rollouts.concurrency": 64}
    given = Settings.from_dict(chosen | {name.replace("__", "."): value for name, value in settings.items()})
    backend: BackendSpec = find_backend(given)
    tasks = [{"number": number} for number in range(held_out)]
    feed = Feed()
    planned = Plan(settings=given, backend=backend, tasks=[{}], held_out=tasks, **(plan or {}))
    return Pace(planned, feed, lambda: NOON), feed


def events(feed: Feed) -> list[PaceEvent]:
    return [each.event for each in feed.after(0) if isinstance(each.event, PaceEvent)]


def test_the_first_rollouts_say_how_long_a_step_will_take() -> None:
    """Once eight have ended, whatever follows: 128 rollouts, 64 at once, are two times as long as one."""
    pace, feed = make(held_out=200)
    pace.note_rollouts([30.0] * 7, 200)
    assert not events(feed)
    for ended in (8, 9, 100):
        pace.note_rollouts([30.0] * ended, 200)
    (told,) = events(feed)
    assert told.text == (
        "the first rollouts took 30 s each, 64 at once: a step of 128 rollouts will take about 60 s and its update, "
        "and the run at least 13 min"
    )
    assert told.is_news
    assert told.seconds == 60.0
    assert told.left == pytest.approx(11 * 60 + 30 * 200 / 64)


def test_a_small_round_is_told_of_when_it_is_over() -> None:
    """Three rollouts are all of its first ones."""
    pace, feed = make(rollouts__tasks_per_step=1, rollouts__group_size=3)
    pace.note_rollouts([30.0] * 2, 3)
    assert not events(feed)
    pace.note_rollouts([30.0] * 3, 3)
    assert "3 at once: a step of 3 rollouts will take about 30 s" in events(feed)[0].text


@pytest.mark.parametrize(("minutes", "left"), [(0.0, "82 s"), (0.5, "50 s")])
def test_the_first_rollouts_of_a_search_say_how_long_its_budget_lasts(minutes: float, left: str) -> None:
    """400 rollouts, 64 at once, and two evaluations of 64 held-out tasks; its minutes end it earlier."""
    settings = {"backend": "prompts", "model": "provider", "prompts.reflect_with": "gpt-5"}
    settings |= {"prompts.budget_rollouts": 400, "prompts.budget_minutes": minutes}
    pace, feed = make(held_out=64, **settings)
    pace.note_rollouts([10.0] * 5, 6)
    assert not events(feed)
    pace.note_rollouts([10.0] * 6, 6)
    (told,) = events(feed)
    assert told.text == (
        f"the first rollouts took 10 s each, 6 at once: if the search uses its 400 rollouts, the run will take at "
        f"least {left}, and the time that the reflecting model needs"
    )
    assert told.is_news
    assert told.left == pytest.approx((30 if minutes else 62.5) + 20)


@pytest.mark.parametrize("plan", [{"evaluate_only": True}, {"check_only": True}, {"from_runs": ("runs/a",)}], ids=str)
def test_rollouts_say_nothing_of_a_run_whose_steps_have_none(plan: dict[str, Any]) -> None:
    """An evaluation, a check, and learning from stored rollouts."""
    pace, feed = make(held_out=200, plan=plan)
    pace.note_rollouts([30.0] * 100, 200)
    assert not events(feed)


def test_the_first_step_says_what_takes_the_time_and_when_the_run_ends() -> None:
    """Three parts, which add up to the step, and the evaluation that is still to come."""
    pace, feed = make(held_out=200)
    pace.note_evaluation(90.0)
    pace.note_step(1, [rollout((0, 8))], 100.0, 50.0)
    (told,) = events(feed)
    assert told.text == (
        "a step takes 2 min (the agent 20 s, the engine 80 s, the learner 50 s); 10 more steps will end at 12:26, "
        "in 26 min"
    )
    assert (told.agent, told.engine, told.learner, told.seconds) == pytest.approx((20.0, 80.0, 50.0, 150.0))
    assert told.left == pytest.approx(10 * 150 + 90)
    assert told.is_news


def test_it_is_told_again_when_it_was_wrong() -> None:
    """Each step is in the feed, with the median of the last ones; what is shown again has changed by a quarter."""
    pace, feed = make(steps=100)
    for step in range(1, 30):
        pace.note_step(step, [rollout((0, 5))], 10.0 if step < 12 else 30.0, 2.0)
    told = events(feed)
    assert len(told) == 29
    assert [index for index, each in enumerate(told, 1) if each.is_news] == [1, 16, 17]
    assert told[-1].seconds == 32.0
    assert told[-1].left == pytest.approx(71 * 32.0)


def test_a_run_of_days_names_the_day_and_the_last_step_is_no_news() -> None:
    """And nothing is left after the last one but the evaluation, which is said elsewhere."""
    pace, feed = make()
    pace.note_step(1, [rollout((0, 5))], 10_000.0, 2000.0)
    pace.note_step(11, [rollout((0, 5))], 10_000.0, 2000.0)
    assert "will end at 21:20 on 2026-12-02, in 33 h 20 min" in events(feed)[0].text
    assert [each.is_news for each in events(feed)] == [True, False]


def test_learning_from_stored_rollouts_names_the_learner_alone() -> None:
    """There is no agent and no engine."""
    pace, feed = make(plan={"from_runs": ("runs/a",)})
    pace.note_step(1, (), 0.0, 4.0)
    assert events(feed)[0].text.startswith("a step takes 4.0 s (the learner 4.0 s); 10 more steps")


@pytest.mark.parametrize(("every", "step", "expected"), [(0, 0, 1), (5, 0, 3), (5, 5, 2), (5, 10, 1), (11, 0, 1)])
def test_evaluations_that_are_still_to_come_take_time_too(every: int, step: int, expected: int) -> None:
    """Those between steps, and the one after the last step, which is made once."""
    pace, feed = make(held_out=5, evaluation__every=every)
    pace.note_evaluation(1000.0)
    pace.note_step(step, [rollout((0, 5))], 0.0, 0.0)
    assert events(feed)[-1].left == pytest.approx(1000.0 * expected)


def test_calls_side_by_side_are_waited_for_once() -> None:
    """Of 20 s of two rollouts, replies were waited for during 4 + 3 s."""
    overlapping, nested = rollout((1, 4), (2, 5)), rollout((0, 3), (1, 2))
    assert engine_share([overlapping, nested]) == pytest.approx(7 / 20)
    assert engine_share([]) == engine_share([rollout(seconds=0.0)]) == 0.0
