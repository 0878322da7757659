"""Repeats: reward functions that are asked some answers twice while rollouts run."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.rollouts import repeats
from lightning_sdk.rollouts.scoring import ascores, scores
from lightning_sdk.stream import notices
from tests.sdk.recorder import Recorder

Reward = Callable[[dict[str, Any], Any], Any]
draw, count = random.Random(5), itertools.count()


def chance(task: dict[str, Any], answer: Any) -> float:
    return draw.random()


def clock(task: dict[str, Any], answer: Any) -> float:
    return time.perf_counter() % 1


def count_up(task: dict[str, Any], answer: Any) -> float:
    return float(next(count) % 2)


def by_role(task: dict[str, Any], answer: Any) -> dict[str, float]:
    return {"writer": 1.0, "checker": draw.random()}


def chance_with_a_reason(task: dict[str, Any], answer: Any) -> lightning.Reward:
    return lightning.Reward(why="no idea", writer=1.0, checker=draw.random())


async def later(task: dict[str, Any], answer: Any) -> float:
    await asyncio.sleep(0)
    return draw.random()


def right(task: dict[str, Any], answer: Any) -> float:
    return float(str(answer) == str(task["n"] % 3))


def in_other_words(task: dict[str, Any], answer: Any) -> tuple[float, str]:
    """As a model that judges: the number stays, the words do not."""
    return right(task, answer), f"because {draw.random()}"


def nearly(task: dict[str, Any], answer: Any) -> float:
    """As a GPU adds up: the last digits differ."""
    return right(task, answer) + 1e-6 * draw.random()


def slow(task: dict[str, Any], answer: Any) -> float:
    time.sleep(2 * repeats.SLOW_SECONDS)
    return draw.random()


seen: set[str] = set()


def raising(task: dict[str, Any], answer: Any) -> float:
    if f"{task}{answer}" in seen:
        raise KeyError(answer)
    seen.add(f"{task}{answer}")
    return draw.random()


def emitting(task: dict[str, Any], answer: Any) -> float:
    lightning.emit_reward(0.5)
    return draw.random()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes no reward a slow one, which is not asked again."""
    monkeypatch.setattr(repeats, "SLOW_SECONDS", 60.0)


def score_all(reward: Reward, many: int = 16, answer: Callable[[int], Any] = str) -> None:
    """As many rollouts, as a runner scores them."""
    (listened,) = repeats.listen((RewardFunction(reward, "final"),))
    for n in range(many):
        with lightning.rollout({"n": n}):
            if reward is later:
                asyncio.run(ascores([listened], {"n": n}, answer(n)))
            else:
                scores([listened], {"n": n}, answer(n))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("reward", [chance, clock, count_up, by_role, chance_with_a_reason, later])
def test_a_reward_that_gives_another_number_is_told(reward: Reward, recorder: Recorder) -> None:
    """With its name, how often, and both numbers, in a rollout of those that followed."""
    score_all(reward)
    told = [span for span in recorder.spans if span.name == notices.UNREPEATED]
    last = told[-1].attributes
    assert last[notices.REWARD] == f"the reward function {reward.__name__}()"
    assert last[notices.AGAIN] >= 7 and last[notices.DIFFERENT] >= 4
    assert last[notices.FIRST] != last[notices.SECOND]


@pytest.mark.parametrize("reward", [right, in_other_words, nearly, slow, raising, emitting])
def test_nothing_is_said_of_other_rewards(reward: Reward, recorder: Recorder) -> None:
    """One that gives the same, or nearly; that takes long; that raises when it is asked again, or emits a reward, for
    which there is no rollout then."""
    score_all(reward, 10)
    assert not [span for span in recorder.spans if span.name == notices.UNREPEATED]


def test_answers_that_are_not_plain_data_are_not_scored_again(recorder: Recorder) -> None:
    """Nor is one that would come back as something else."""
    for answer in (lambda n: object(), lambda n: (n, n)):
        score_all(chance, answer=answer)
    assert not [span for span in recorder.spans if span.name == notices.UNREPEATED]


@pytest.mark.usefixtures("patience")
def test_few_answers_are_scored_again_and_none_in_a_rollout(recorder: Recorder) -> None:
    """Eight more calls in all, with copies of task and answer, and no reward of theirs counts."""
    calls: list[Any] = []

    def watch(task: dict[str, Any], answer: list[int]) -> float:
        calls.append((task, answer))
        answer.append(1)
        return 1.0

    score_all(watch, 50, lambda n: [n])
    assert len(calls) == 50 + repeats.KEPT
    assert sorted(answer[0] for _, answer in calls)[: 2 * repeats.KEPT] == sorted([*range(repeats.KEPT)] * 2)
    assert all(len(answer) == 2 for _, answer in calls)
