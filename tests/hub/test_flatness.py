"""Flatness: rollouts without a signal, and what is said of each kind of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from lightning_hub.diagnosis.flatness import flatness
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.failures.finding import Finding
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Call, Status
from tests.hub.spoken import assistant, call, rollout

TASKS = {number: {"question": f"What is {number} + 2?", "answer": str(number + 2)} for number in range(4)}


def play(
    rewards: list[list[float]], words: list[list[str]] | None = None, asked: dict[str, Any] | None = None
) -> list[Rollout]:
    """A rollout for each reward, in groups; each says something different unless `words` are given."""
    return [
        rollout(
            10 * group + at,
            asking(call(10 * group + at, answer=assistant(said)), asked or {}),
            rewards={"": reward},
            group=f"1-{group}",
            task_id=group,
            answer=said,
        )
        for group, of_group in enumerate(rewards)
        for at, reward in enumerate(of_group)
        for said in [words[group][at] if words else f"It is {10 * group + at}"]
    ]


def asking(made: Call, more: dict[str, Any]) -> Call:
    return replace(made, request=json.dumps(json.loads(made.request) | more).encode())


def find_flatness(rollouts: list[Rollout], **settings: Any) -> Finding | None:
    flat = flatness(rollouts, Settings.from_dict(settings), TASKS)
    return flat.finding() if flat is not None else None


def words_of(rollouts: list[Rollout], **settings: Any) -> str:
    finding = find_flatness(rollouts, **settings)
    assert finding is not None and finding.kind == "no signal"
    return str(finding)


def test_a_group_with_two_rewards_has_a_signal() -> None:
    """One of three is enough."""
    assert find_flatness(play([[0, 0], [1, 0], [1, 1]])) is None


def test_every_answer_was_wrong() -> None:
    """Not the reward alone is blamed: the model is named, and three tasks are shown with answer and reward."""
    text = words_of(play([[0, 0], [0, 0], [0, 0], [0, 0]]))
    assert "in each of 4 groups" in text and "every reward is 0" in text
    assert "Every answer was wrong" in text and "spark, the small model that ships" in text and "--model" in text
    for task in (0, 1, 3):
        shown = f'  task    {json.dumps(TASKS[task])}\n  answer  "It is {10 * task}"\n  reward  0\n'
        assert shown in text
    assert "The model some/model may not be able" in words_of(play([[0, 0]]), model="some/model")


def test_an_answer_is_shown_with_the_reasons_of_its_rewards() -> None:
    """Below its reward, one for each reward that has one, in one line."""
    played = [
        each.with_rewards(
            (
                EarnedReward("", "right", 0.0, 10, "unit\nmissing"),
                EarnedReward("solver", "brief", 0.0, 10, "w" * 300),
                EarnedReward("", "kind", 0.0, 10),
            )
        )
        for each in play([[0, 0]])
    ]
    text = words_of(played)
    assert '  answer  "It is 0"\n  reward  0\n  why     right: unit missing\n  why     brief of solver: www' in text
    assert "w" * 157 + "...\n" in text and "w" * 158 not in text and "kind" not in text


def test_every_answer_was_right() -> None:
    """There is nothing more to learn; that the reward counts all as right is the other possibility."""
    text = words_of(play([[1, 1], [1, 1]]))
    assert "Every answer was right, or the reward counts all as right" in text and "use harder tasks" in text
    assert "spark" not in text


def test_every_answer_earned_the_same() -> None:
    """If that reward is neither the lowest nor the highest, only the equality is known."""
    text = words_of(play([[0.25, 0.25], [0.25, 0.25]]))
    assert "every reward is 0.25" in text and "does not tell them apart" in text


def test_what_is_much_is_known_from_other_rewards() -> None:
    """0.25 is the highest where 0 was seen, and the lowest where 1 was; whether that is right, they do not tell."""
    for seen, words in (([0.0, 0.25], "earned 0.25, the highest"), ([0.25, 1.0], "earned 0.25, the lowest")):
        flat = flatness(play([[0.25, 0.25]]), Settings(), TASKS, seen=seen)
        assert flat is not None and words in str(flat.finding()) and "Every answer was" not in str(flat.finding())


@pytest.mark.parametrize("rewards", [[[19, 19], [19, 19]], [[-3, -3]], [[0.5, 0.5]], [[2, 2]]])
def test_nobody_calls_answers_right_whose_reward_has_another_scale(rewards: list[list[float]]) -> None:
    """A reward such as the length of an answer is told as equal, since 19 may be much or little."""
    text = words_of(play(rewards))
    assert "Every answer was" not in text and "does not tell them apart" in text


def test_the_range_of_a_reward_says_what_is_right() -> None:
    """With evaluation.reward_low and reward_high, only their ends are wrong and right."""
    scale = {"evaluation.reward_low": 0.0, "evaluation.reward_high": 10.0}
    assert "Every answer was right" in words_of(play([[10, 10]]), **scale)
    assert "Every answer was wrong" in words_of(play([[0, 0]]), **scale)
    assert "does not tell them apart" in words_of(play([[1, 1]]), **scale)


def test_tasks_that_are_solved_always_or_never() -> None:
    """Rewards differ, and never within a task; unless tasks are compared with each other."""
    rollouts = play([[0, 0], [1, 1]])
    text = words_of(rollouts, **{"rollouts.group_size": 4})
    assert "rewards differ between tasks only" in text and "--set rollouts.group_size=8" in text
    assert find_flatness(rollouts, **{"credit.advantage": "running_mean"}) is None
    assert find_flatness(rollouts, **{"credit.advantage": "reinforce++"}) is None


def test_constant_rewards_teach_no_estimator() -> None:
    """Whatever the baseline is."""
    for advantage in ("running_mean", "reinforce++", "reinforce", "gae"):
        assert "every reward is 0" in words_of(play([[0, 0], [0, 0]]), **{"credit.advantage": advantage})


SAME = [["It is 5", "It is 5"], ["It is 7", "It is 7"]]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seed": 7}, r"the same seed \(7\).*Leave the seed out"),
        ({"temperature": 0.05}, r"temperature 0.05.*--set sampling.temperature=1"),
        ({}, r"the model is this certain of its answers"),
    ],
)
def test_rollouts_that_are_all_alike(asked: dict[str, Any], words: str) -> None:
    """The sampling is the cause, and not the reward; which part of it is told from the requests."""
    text = words_of(play([[0, 0], [0, 0]], SAME, asked))
    assert "All rollouts of a task said the same, token for token" in text
    assert re.search(words, text), text
    assert "fix the reward" not in text


def test_draws_that_agree_by_no_chance() -> None:
    """The model's own probabilities tell an engine that does not sample freely from a model that is sure."""
    text = words_of(play([[0] * 4, [0] * 4], [["It is 5"] * 4, ["It is 7"] * 4]))
    assert (
        "by the model's own probabilities this happens once in 10^12 times" in text and "does not sample freely" in text
    )
    assert "the model is that sure" not in text and "configuration of the server" in text


def test_a_reply_that_comes_twice_is_of_a_cache() -> None:
    """The engine gives no reply twice."""
    rollouts = play([[0, 0], [0, 0]], SAME)
    cached = [replace(each, calls=(replace(each.calls[0], response_id=f"r-{each.group}"),)) for each in rollouts]
    assert "several calls got the same reply, as from a cache" in words_of(cached)


def test_right_answers_may_well_be_alike() -> None:
    """A model that is sure of what is right needs harder tasks; with a seed it may only look so."""
    assert "use harder tasks" in words_of(play([[1, 1], [1, 1]], SAME))
    assert "the same seed" in words_of(play([[1, 1], [1, 1]], SAME, {"seed": 7}))


def test_no_two_rollouts_of_a_task_can_be_compared() -> None:
    """The others failed: a check is not ready to train with 0 of 0 groups."""
    rollouts = play([[0], [1]])
    failed = [rollout(90 + at, group=f"1-{at}", status=Status.AGENT_ERROR, error="KeyError: 'x'") for at in (0, 1)]
    text = words_of([*rollouts, *failed])
    assert "no two rollouts of one task" in text and "2 of 4 rollouts failed or made no call" in text


def cut(rollouts: list[Rollout]) -> list[Rollout]:
    """The same, with every completion at the token limit."""
    return [
        replace(
            each,
            calls=tuple(replace(one, choices=(replace(one.choices[0], finish_reason="length"),)) for one in each.calls),
        )
        for each in rollouts
    ]


@pytest.mark.parametrize("setting", ["mask", "exclude"])
def test_everything_is_left_out_for_its_length(setting: str) -> None:
    """Rewards differ, and no token may be trained on: the setting is named, and not advised."""
    text = words_of(cut(play([[0, 1], [0, 1]])), **{"length.truncated": setting})
    assert "no token is trained on" in text and f"length.truncated={setting} leaves those out" in text
    assert "--set sampling.max_tokens=512" in text and "--set length.truncated=train" in text
    assert find_flatness(cut(play([[0, 1], [0, 1]]))) is None


def test_rows_that_are_all_too_long() -> None:
    """The other way of leaving all out."""
    text = words_of(play([[0, 1], [0, 1]]), **{"length.max_row": 5, "length.long_rows": "exclude"})
    assert "Every row is longer than length.max_row=5" in text and "--set length.max_row=10" in text


def test_a_role_that_is_never_trained_does_not_count() -> None:
    """Its signal is nobody's."""
    rollouts = [
        rollout(at, call(at, role="writer"), call(9, role="judge"), rewards={"writer": 0.0, "judge": float(at)})
        for at in (0, 1)
    ]
    assert find_flatness(rollouts) is None
    assert find_flatness(rollouts, **{"role.judge.schedule": "never"}) is not None
    assert find_flatness(rollouts, **{"role.judge.weight": 0.0}) is not None


def test_what_no_role_earned_is_another_finding() -> None:
    """Without a reward there is nothing to call equal."""
    assert find_flatness([rollout(at, call(at), rewards={}) for at in (0, 1)]) is None


def test_an_empty_answer_is_shown_with_what_the_model_said() -> None:
    """An agent that found nothing to give back says little."""
    rollouts = [replace(each, answer="") for each in play([[0, 0]])]
    assert 'answer  "" (the model said "It is 0")' in words_of(rollouts)
