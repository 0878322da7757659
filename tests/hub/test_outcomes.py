"""A rollout ends as what it was: whatever an agent or a reward raises, in runners of every kind, by its own name."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk import markers
from tests.hub import ending_agent
from tests.hub.ending_agent import ASYNC, PLAIN

#: What the task says, and the rollout's status and error.
Ended = tuple[str, str, str]
FILE = str(Path(ending_agent.__file__))


@pytest.fixture
def check_outcomes(bandit_site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Run `lightning.check` with the bandit, each task twice; how each rollout ended."""
    monkeypatch.setenv("PYTHONPATH", str(bandit_site))
    monkeypatch.setitem(markers.agent.declared, "solver", True)

    def check(agent: Any, tasks: list[dict[str, Any]], reward: Any = ending_agent.one, **more: Any) -> list[Ended]:
        settings = {
            "rollouts.tasks_per_step": len(tasks),
            "rollouts.group_size": 2,
            "failure.refills": 0,
            "rollouts.timeout": 20.0,
            "failure.timeout": "exclude",
            **more,
        }
        lightning.check(agent, tasks, reward, backend="bandit", keep=tmp_path / "kept", quiet=True, **settings)
        with sqlite3.connect(tmp_path / "kept" / "hub.sqlite") as store:
            rows = store.execute("SELECT task, status, error FROM rollouts").fetchall()
        store.close()
        assert len(rows) == 2 * len(tasks)
        return [(json.loads(task)["how"], status, error) for task, status, error in rows]

    yield check
    lightning.shutdown()


def tasks(*names: str) -> list[dict[str, Any]]:
    return [{"how": name} for name in names]


def assert_ended(found: list[Ended], expected: dict[str, str], status: str = "agent_error") -> None:
    """Each by its own name and with a line of this agent's file; the others went well."""
    for how, ended, error in found:
        if how not in expected:
            assert (ended, error) == ("ok", ""), how
            continue
        assert ended == status and error.startswith(expected[how]), (how, ended, error)
        assert f"{FILE}:" in error, (how, error)


@pytest.mark.parametrize("runner", ["threads", "2"])
def test_whatever_a_plain_agent_raises(check_outcomes: Callable[..., Any], runner: str) -> None:
    """It is the agent's error, at once, also what ends a thread or a process in other code."""
    found = check_outcomes(ending_agent.solve, tasks("good", *PLAIN), **{"rollouts.runner": runner})
    assert_ended(found, {name: line for name, (_, line) in PLAIN.items()})


@pytest.mark.parametrize("runner", ["asyncio", "threads"])
def test_whatever_an_async_agent_raises(check_outcomes: Callable[..., Any], runner: str) -> None:
    """The loop that all share goes on, and only our own deadline is a timeout."""
    # In a coroutine StopIteration is a RuntimeError; to stop the loop in a thread is to stop one's own.
    left_out = {"timeout", "empty"} | ({"astop"} if runner == "threads" else set())
    expected = {name: line for name, (_, line) in (PLAIN | ASYNC).items() if name not in left_out}
    found = check_outcomes(ending_agent.asolve, tasks("good", "better", *expected), **{"rollouts.runner": runner})
    assert_ended(found, expected)


def test_our_own_deadline_is_a_timeout(check_outcomes: Callable[..., Any]) -> None:
    """An async agent that outlives it is ended by its runner, with the setting in the words."""

    @lightning.agent(role="solver", trainable=True)
    async def slow(task: dict[str, Any]) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("what a cancelled agent raises is not what ended it")

    found = check_outcomes(slow, tasks("slow"), **{"rollouts.timeout": 1.0})
    assert found == [("slow", "timeout", "no answer after 1 s (rollouts.timeout)")] * 2


def test_whatever_an_async_reward_raises(check_outcomes: Callable[..., Any]) -> None:
    """It is the reward's error, and the loop goes on; a judge that did not answer in time is told as that."""
    expected = {
        f"reward-{name}": f"RewardError: the reward function aending() raised {line}"
        for name, (_, line) in ASYNC.items()
    }
    found = check_outcomes(ending_agent.asolve, tasks("good", *expected), ending_agent.aending)
    assert_ended(found, expected, "reward_error")
    late = [error for how, _, error in found if how == "reward-atimeout"]
    assert all("-> The service that the reward function calls was not reached" in error for error in late)


def test_code_that_cancels_every_task(check_outcomes: Callable[..., Any]) -> None:
    """Rollouts that it interrupts end at once as cancelled; nothing waits for the deadline."""

    waiting = list[str]()

    @lightning.agent(role="solver", trainable=True)
    async def agent(task: dict[str, Any]) -> str:
        if task["how"] == "waits":
            waiting.append(task["how"])
        else:
            while len(waiting) < 2:
                await asyncio.sleep(0.01)
            for each in asyncio.all_tasks():
                each.cancel()
        await asyncio.sleep(60 if task["how"] == "waits" else 0)
        return await ending_agent.asolve(task)

    found = check_outcomes(agent, tasks("cancels", "waits"))
    assert {(status, error.splitlines()[0]) for _, status, error in found} == {("agent_error", "CancelledError")}


def test_an_agent_that_ends_its_process(check_outcomes: Callable[..., Any]) -> None:
    """os._exit() is told at once, as the agent's error where no other rollout ran there; another process follows."""
    found = check_outcomes(
        ending_agent.leaving, tasks("leaves", "a", "b"), **{"rollouts.runner": "2", "rollouts.concurrency": 2}
    )
    why = "the agent ended its process with exit code 7, as os._exit() does"
    for how, status, error in found:
        assert (status, error) == (("agent_error", why) if how == "leaves" else ("ok", "")), how


@pytest.fixture
def train(
    bandit_site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., lightning.Report]]:
    """`lightning.train` with the bandit, for two small steps."""
    monkeypatch.setenv("PYTHONPATH", str(bandit_site))
    monkeypatch.setitem(markers.agent.declared, "solver", True)
    monkeypatch.setattr(markers.reward, "marked", [])

    def start(agent: Any, **more: Any) -> lightning.Report:
        settings = {
            "rollouts.tasks_per_step": 2,
            "rollouts.group_size": 4,
            "algorithm.aggregation": "token-mean",
            "failure.refills": 0,
            **more,
        }
        return lightning.train(
            agent, tasks(*"abcdef"), backend="bandit", runs=tmp_path, steps=2, quiet=True, **settings
        )

    yield start
    lightning.shutdown()


@pytest.mark.parametrize("runner", ["threads", "2"])
def test_an_agent_that_rewards_itself_is_trained(train: Callable[..., lightning.Report], runner: str) -> None:
    """Without any reward function, in this process and in others."""
    report = train(ending_agent.judge, **{"rollouts.runner": runner})
    assert report.values["rollouts_by_status"]["ok"] == 16 and report.before is not None


def test_neither_a_reward_function_nor_a_reward_from_inside(train: Callable[..., lightning.Report]) -> None:
    """The first round ends the training, and both ways to give a reward are named."""
    with pytest.raises(lightning.RolloutsFailed) as error:
        train(ending_agent.solve)
    text = str(error.value)
    assert "without a reward: there is no reward function" in text
    assert "Put @lightning.reward above a function" in text and "lightning.emit_reward(number)" in text


def test_the_end_of_a_training_says_whose_fault_it_was(train: Callable[..., lightning.Report]) -> None:
    """The agent's own line, and an advice that fits what happened."""

    @lightning.agent(role="solver", trainable=True)
    def agent(task: dict[str, Any]) -> str:
        return OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1", max_retries=0).models.list().object

    with pytest.raises(lightning.RolloutsFailed) as error:
        train(agent, reward=ending_agent.one)
    text = str(error.value)
    assert f"{__file__}:" in text and "in agent: return OpenAI(" in text
    assert "The service at http://127.0.0.1:9/v1/models that the agent calls was not reached" in text
    assert "mend it" not in text
