"""Shortcuts: prompts that hold the answer, and rewards that follow the length, with their look-alikes that are none."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.diagnosis.leak import Leak, find_leaks
from lightning_hub.diagnosis.shortcut import find_length_shortcuts
from lightning_hub.rollout import Rollout
from lightning_sdk.settings import Settings
from tests.hub.spoken import assistant, call, rollout, user

Tasks = dict[int, dict[str, Any]]
SUMS: Tasks = {n: {"question": f"What is {n + 20} + {7 * n + 40}?", "answer": str(8 * n + 60)} for n in range(6)}


def ask_twice(tasks: Tasks, prompt: str, answer: str = "I do not know", best: str = "") -> list[Rollout]:
    """Two rollouts of each task with this prompt; the second one of each earns 1 and answers `best`, if it is given."""
    return [
        rollout(
            2 * n + at,
            call(1, [user(prompt.format(**task))], assistant((best if at else answer).format(**task))),
            task_id=n,
            group=f"1-{n}",
            rewards={"": float(at)},
        )
        for n, task in tasks.items()
        for at in (0, 1)
    ]


def leaking_fields(rollouts: list[Rollout], tasks: Tasks) -> list[str]:
    return [each.field for each in find_leaks(rollouts, tasks, Settings())]


def test_an_answer_in_the_prompt() -> None:
    """A field that is called so, in every prompt, and in no other task's."""
    made = ask_twice(SUMS, "{question} (The answer is {answer}.)")
    # The question of one task happens to hold the answer of another one.
    assert find_leaks(made, SUMS, Settings()) == [Leak("answer", 6, 6, pytest.approx(1 / 30), "60")]
    (finding,) = diagnose(DiagnosisInput(rollouts=made, tasks=SUMS)).findings
    assert (finding.kind, finding.severity) == ("answer in the prompt", "warning")
    assert "field 'answer'" in finding.what and "in 6 of 6 tasks (such as '60')" in finding.what
    assert "Leave task['answer'] out" in finding.remedy


def test_a_field_of_any_name_that_the_best_rollouts_answered() -> None:
    """It is the answer because the rollouts that said exactly that earned the most."""
    tasks = {n: {"q": task["question"], "x": task["answer"]} for n, task in SUMS.items()}
    assert leaking_fields(ask_twice(tasks, "{q} Hint: {x}", best="{x}"), tasks) == ["x"]
    assert leaking_fields(ask_twice(tasks, "{q} Hint: {x}", best="yes"), tasks) == []


@pytest.mark.parametrize(
    ("tasks", "prompt"),
    [
        (SUMS, "{question}"),
        (SUMS, "{question} Between " + " ".join(task["answer"] for task in SUMS.values())),
        ({n: {"question": f"Is {n} or {n + 1} even?", "answer": str(n + n % 2)} for n in range(6)}, "{question}"),
        ({n: {"context": f"Ada has {n} cats.", "answer": str(n)} for n in range(6)}, "{context} How many?"),
        ({n: {"choices": ["red", f"b{n}"], "answer": f"b{n}"} for n in range(6)}, "Which one: {choices}?"),
        ({n: {"numbers": [n, 9], "target": n + 30} for n in range(6)}, "Make {target} of {numbers}"),
        ({n: {"text": f"Is {n} prime?", "answer": ("yes", "no")[n % 2]} for n in range(6)}, "{text} Say yes or no."),
        ({n: {"text": f"No. {n}", "answer": n} for n in range(3)}, "{text} 10 21 32.5 -1"),
        (dict(list(SUMS.items())[:2]), "{question} (The answer is {answer}.)"),
    ],
    ids=[
        "not told",
        "all are told",
        "in the question",
        "in the context",
        "a choice",
        "the goal",
        "yes or no",
        "in another number",
        "two tasks only",
    ],
)
def test_what_is_not_a_leak(tasks: Tasks, prompt: str) -> None:
    """What the task itself holds, what every prompt holds, and what only looks like the answer."""
    assert leaking_fields(ask_twice(tasks, prompt), tasks) == []


def test_without_the_tasks_nothing_is_said() -> None:
    """A round whose tasks are not known, or are not those of these rollouts."""
    made = ask_twice(SUMS, "{question} (The answer is {answer}.)")
    assert leaking_fields(made, {}) == [] and leaking_fields(made, {9: SUMS[0]}) == []


# --- length


def rollout_of(lengths: list[list[int]], rewards: list[list[float]]) -> list[Rollout]:
    """A rollout of so many sampled tokens and with this reward for each, by group."""
    return [
        rollout(
            10 * n + at,
            call(1, answer=assistant("a" * length), sampled=list(range(length))),
            group=f"1-{n}",
            rewards={"": reward},
        )
        for n, (own, given) in enumerate(zip(lengths, rewards, strict=True))
        for at, (length, reward) in enumerate(zip(own, given, strict=True))
    ]


LENGTHS = [[3, 9, 5, 7], [12, 2, 8, 6], [4, 1, 9, 30], [7, 3, 11, 2]]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_reward_that_is_the_length(sign: int) -> None:
    """Longer or shorter, in every group."""
    made = rollout_of(LENGTHS, [[float(sign * each) for each in group] for group in LENGTHS])
    (found,) = find_length_shortcuts(made, Settings())
    assert found.correlation == pytest.approx(sign) and (found.role, found.groups) == ("solver", 4)
    (finding,) = diagnose(DiagnosisInput(rollouts=made)).findings
    assert finding.kind == "reward follows length" and finding.severity == "warning"
    assert ("the longer, the higher" if sign > 0 else "the shorter, the higher") in finding.what


@pytest.mark.parametrize(
    "rewards",
    [
        [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]],
        [[3.0, 1.0, 2.0, 0.5], [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], [2.0, 1.0, 4.0, 3.0]],
        [[3.0, 9.0, 5.0, 7.0], [12.0, 2.0, 8.0, 6.0], [-4.0, -1.0, -9.0, -30.0], [-7.0, -3.0, -11.0, -2.0]],
    ],
    ids=["right answers that are long", "none", "once longer, once shorter"],
)
def test_what_does_not_follow_the_length(rewards: list[list[float]]) -> None:
    """Right answers may well be longer than wrong ones; only a reward of many values can show more."""
    assert find_length_shortcuts(rollout_of(LENGTHS, rewards), Settings()) == []


def test_two_groups_are_too_few() -> None:
    """They may agree by chance."""
    two = LENGTHS[:2]
    assert find_length_shortcuts(rollout_of(two, [[float(each) for each in group] for group in two]), Settings()) == []
