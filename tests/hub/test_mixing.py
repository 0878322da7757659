"""Rollouts that share a memory are told from those that share a prompt."""

from __future__ import annotations

import pytest

from lightning_hub.diagnosis.diagnosis import DiagnosisInput, diagnose
from lightning_hub.rollout import Rollout
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.stream import notices
from tests.hub.spoken import SYSTEM, Message, assistant, call, rollout, span, user

QUESTIONS = ["How far is the moon?", "Who wrote Faust?", "What is the tallest tree?", "Where does the Rhine end?"]
ANSWERS = ["Far away.", "Goethe did.", "A redwood.", "In the sea."]
TASKS = {number: {"question": question} for number, question in enumerate(QUESTIONS)}


def play(number: int, *asked: Message, task: int | None = None, **more: object) -> Rollout:
    """A rollout of one call, each later than the one before."""
    made = call(10 * number + 1, list(asked), assistant(ANSWERS[number % 4]))
    task = number if task is None else task
    return rollout(number, made, task_id=task, group=f"1-{task}", rewards={"": float(number)}, **more)


def mixing(*rollouts: Rollout) -> Finding | None:
    diagnosis: Diagnosis = diagnose(DiagnosisInput(rollouts=rollouts, tasks=TASKS))
    return next((each for each in diagnosis.findings if each.kind == "rollouts mixed"), None)


def test_a_memory_that_grows() -> None:
    """Each rollout holds what those before it were asked and answered."""
    memory: list[Message] = [SYSTEM]
    made = []
    for number in range(4):
        memory.append(user(QUESTIONS[number]))
        made.append(play(number, *memory))
        memory.append(assistant(ANSWERS[number]))
    found = mixing(*made)
    assert found is not None and found.severity == "fatal" and found.passing
    assert "in 3 of 4 rollouts the first request of the role solver holds a message of another rollout" in found.what
    assert QUESTIONS[0] in found.what and "--runners" in found.remedy


def test_rollouts_that_run_side_by_side() -> None:
    """Questions come before the answers to others, and the first one is in every request, once as the last message."""
    every = [user(QUESTIONS[number]) for number in (0, 0, 1, 1)]
    made = [play(number, *every[: number + 1], task=number // 2) for number in range(4)]
    found = mixing(*made)
    assert found is not None and "in 2 of 4 rollouts" in found.what and QUESTIONS[0] in found.what


def test_all_requests_are_the_same() -> None:
    """All questions were there before the first request left: it is the last one that all answer."""
    every = [SYSTEM, *map(user, QUESTIONS)]
    found = mixing(*(play(number, *every) for number in range(4)))
    assert found is not None and "in 3 of 4 rollouts" in found.what


def test_rollouts_of_one_task() -> None:
    """They are asked the same, and an answer of another one is in the prompt."""
    once = [SYSTEM, user(QUESTIONS[0])]
    memory = [*once]
    made = []
    for number in range(3):
        made.append(play(number, *memory, task=0))
        memory += [assistant(ANSWERS[number]), user(QUESTIONS[0])]
    found = mixing(*made)
    assert found is not None and "in 2 of 3 rollouts" in found.what and ANSWERS[0] in found.what


def test_the_object_is_named() -> None:
    """If the agent's process told of one that several rollouts ran."""
    told = {notices.OBJECT: "AssistantAgent 'writer' (team.writer)"}
    shared = span(notices.SHARED, told, role="solver")
    every = [SYSTEM, *map(user, QUESTIONS)]
    found = mixing(*(play(number, *every, spans=(shared,)) for number in range(4)))
    assert found is not None and found.cause.startswith("AssistantAgent 'writer' (team.writer) is created once")


@pytest.mark.parametrize(
    "asked",
    [
        lambda number: [SYSTEM, user(QUESTIONS[number])],
        lambda number: [SYSTEM, user(QUESTIONS[0]), assistant(ANSWERS[0]), user(QUESTIONS[number])],
        lambda number: [user(f"Choose from {QUESTIONS}. {QUESTIONS[number]}")],
        lambda number: [SYSTEM, user(f"Try {number} of this"), assistant("Yes."), user("Go on.")],
        lambda number: [user("Continue.")],
    ],
    ids=["alone", "an example that is a task too", "a list to choose from", "a conversation", "no task at all"],
)
def test_prompts_that_are_alike_are_not_mixed(asked: object) -> None:
    """Examples, lists and conversations of a rollout's own."""
    assert callable(asked)
    assert mixing(*(play(number, *asked(number)) for number in range(4))) is None


def test_a_retry_by_the_agent_itself_is_not_mixed() -> None:
    """Later calls of a rollout hold its own answers."""
    made = []
    for number in range(4):
        first = [SYSTEM, user(QUESTIONS[number])]
        then = [*first, assistant(ANSWERS[number]), user("Sure?")]
        calls = call(1, first, assistant(ANSWERS[number])), call(2, then, assistant("Yes."))
        made.append(rollout(number, *calls, task_id=number, group=f"1-{number}"))
    assert mixing(*made) is None


def test_turns_of_one_conversation_that_are_tasks_are_not_mixed() -> None:
    """Each task holds what was said before it, which is what an earlier task asks."""
    said = [message for pair in zip(map(user, QUESTIONS), map(assistant, ANSWERS), strict=True) for message in pair]
    tasks = {number: {"messages": said[: 2 * number + 1]} for number in range(4)}
    made = [play(number, SYSTEM, *said[: 2 * number + 1]) for number in range(4)]
    assert not [
        each for each in diagnose(DiagnosisInput(rollouts=made, tasks=tasks)).findings if each.kind == "rollouts mixed"
    ]
