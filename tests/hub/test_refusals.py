"""Trainings that cannot go on: each stops at once, and says what happened, with which value, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_sdk.errors import SettingError, TaskError
from tests.hub.hubs import end, reply, reward
from tests.hub.runners import TASKS, Runner, ask_engine, call, failing, good


def failure_of(event: dict[str, Any]) -> tuple[str, str]:
    """Class and message of the error that ended a training."""
    assert event["type"] == "failed", event
    return tuple(event["error"])  # type: ignore[return-value]


def test_an_agent_that_raises(runner: Runner) -> None:
    """The most common error comes with its count and its last frames."""
    error = "ValueError: no such tool: calc\n  agent.py:3 in solve\n  agent.py:9 in use"
    name, message = failure_of(runner.train(failing("agent_error", error)))
    assert name == "RolloutsFailed"
    assert "2 of 2 rollouts of evaluation 'before' failed" in message
    assert "2 ended as agent_error" in message
    assert "ValueError: no such tool: calc" in message
    assert "agent.py:9 in use" in message


def test_more_failures_than_allowed(runner: Runner) -> None:
    """One failure of two is allowed by failure.max_failed=0.5, but not by 0.4."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        fails = assignment["task"] == TASKS[1]
        return failing("agent_error", "ValueError: x")(assignment) if fails else good(assignment)

    name, message = failure_of(runner.train(agent, {"failure.max_failed": 0.4}))
    assert name == "RolloutsFailed"
    assert "1 of 2" in message
    assert "40%" in message


def test_a_reward_that_is_nan(runner: Runner) -> None:
    """It is named with its value, and is not read as zero."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        key = assignment["key"]
        return [call(assignment, ask_engine(assignment)), reward(key, float("nan")), end(key)]

    name, message = failure_of(runner.train(agent))
    assert name == "RolloutsFailed"
    assert "reward 'final' is nan" in message
    assert "2 ended as reward_error" in message


def test_an_agent_that_calls_no_model(runner: Runner) -> None:
    """Nothing was seen at all: the message says so and where to look."""
    name, message = failure_of(runner.train(lambda each: [reward(each["key"], 1.0), end(each["key"])]))
    assert name == "NothingToTrain"
    assert "made no model call" in message
    assert "lightning.status()" in message


def test_calls_of_roles_that_are_not_trainable(runner: Runner) -> None:
    """The roles that were seen are listed with their counts, and what to type."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        key = assignment["key"]
        calls = [call(assignment, reply(), role=role, trainable=False) for role in ("planner", "planner", "")]
        return [*calls, reward(key, 1.0), end(key)]

    name, message = failure_of(runner.train(agent))
    assert name == "NothingToTrain"
    assert "4 of planner, 2 of no role" in message
    assert "trainable=True" in message
    name, message = failure_of(runner.train(agent, {"roles": ("solver",)}))
    assert "roles to train (solver)" in message


def test_calls_without_ids(runner: Runner) -> None:
    """Silence about ids is an error with its reason, not a row of zeros."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        answer, key = ask_engine(assignment), assignment["key"]
        if assignment["mode"] == "train" and assignment["group"].endswith("-1"):
            answer["choices"][0]["logprobs"] = None
        return [call(assignment, answer), reward(key, 1.0), end(key)]

    name, message = failure_of(runner.train(agent))
    assert name == "NothingToTrain"
    assert "4 calls of trainable roles cannot be trained on" in message
    assert "no log-probabilities" in message


def test_a_model_that_is_none(runner: Runner) -> None:
    """What the backend raises at its start arrives as itself; a bug is told apart."""
    assert failure_of(runner.train(good, {"model": "broken"})) == ("ModelError", "model 'broken': no config.json in it")
    name, message = failure_of(runner.train(good, {"model": "buggy"}))
    assert name == "LightningError"
    assert "RuntimeError: a bug of the backend" in message


def test_a_backend_that_dies(runner: Runner) -> None:
    """Rollouts are not waited for when nobody serves them."""
    name, message = failure_of(runner.train(lambda _: [], {"model": "mortal"}))
    assert (name, message) == ("BackendDied", "the bandit has died")


@pytest.mark.parametrize(
    ("settings", "params", "error", "told"),
    [
        ({"backend": "nope"}, {}, SettingError, "'nope'.*installed: bandit, embedded"),
        (
            {"divergence.coefficient": 0.1},
            {},
            SettingError,
            r"'bandit' does not honour divergence.coefficient=0.1: .* another backend \(embedded, verl\)",
        ),
        ({"cluster.gpus": 2}, {}, SettingError, r"does not honour cluster.gpus=2: .* another backend \(verl\)"),
        ({"optimizer.learning_rat": 1.0}, {}, SettingError, "did you mean optimizer.learning_rate"),
        ({"roles": ("sover",)}, {"declared_roles": {"solver": True}}, SettingError, "sover.*declared roles: solver"),
        ({}, {"tasks": []}, TaskError, "tasks is empty"),
        ({}, {"tasks": [{}, "what?"]}, TaskError, "task 1 of tasks is 'what\\?'"),
        ({}, {"held_out": [3]}, TaskError, "task 0 of held_out is 3"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    runner: Runner, settings: dict[str, Any], params: dict[str, Any], error: type[Exception], told: str
) -> None:
    """Before anything is started, by name and value."""
    with pytest.raises(error, match=told):
        runner.begin(settings, **params)
