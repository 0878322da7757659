"""A rollout ends as what it was: whatever an agent or a reward raises, in runners of every kind, by its own name."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ending_agent
import pytest
from ending_agent import ASYNC, PLAIN

import lightning_sdk as lightning

#: What the task says, and the rollout's status and error.
Ended = tuple[str, str, str]
FILE = str(Path(ending_agent.__file__))


@pytest.fixture
def checked(installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Run `lightning.check` with the bandit, each task twice; how each rollout ended."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setitem(sys.modules["lightning_sdk.agent"].declared, "solver", True)

    def check(agent: Any, tasks: list[dict[str, Any]], reward: Any = ending_agent.one, **more: Any) -> list[Ended]:
        settings = {"rollouts.tasks_per_step": len(tasks), "rollouts.group_size": 2, "failure.refills": 0,
                    "rollouts.timeout": 20.0, "failure.timeout": "exclude", **more}  # fmt: skip
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
def test_whatever_a_plain_agent_raises(checked: Callable[..., Any], runner: str) -> None:
    """It is the agent's error, at once, also what ends a thread or a process in other code."""
    found = checked(ending_agent.solve, tasks("good", *PLAIN), **{"rollouts.runner": runner})
    assert_ended(found, {name: line for name, (_, line) in PLAIN.items()})


@pytest.mark.parametrize("runner", ["asyncio", "threads"])
def test_whatever_an_async_agent_raises(checked: Callable[..., Any], runner: str) -> None:
    """The loop that all share goes on, and only our own deadline is a timeout."""
    # In a coroutine StopIteration is a RuntimeError; to stop the loop in a thread is to stop one's own.
    left_out = {"timeout", "empty"} | ({"astop"} if runner == "threads" else set())
    expected = {name: line for name, (_, line) in (PLAIN | ASYNC).items() if name not in left_out}
    found = checked(ending_agent.asolve, tasks("good", "better", *expected), **{"rollouts.runner": runner})
    assert_ended(found, expected)


def test_our_own_deadline_is_a_timeout(checked: Callable[..., Any]) -> None:
    """An async agent that outlives it is ended by its runner, with the setting in the words."""

    @lightning.agent(role="solver", trainable=True)
    async def slow(task: dict[str, Any]) -> str:
        try:
            await ending_agent.asyncio.sleep(60)
        finally:
            raise KeyError("what a cancelled agent raises is not what ended it")

    found = checked(slow, tasks("slow"), **{"rollouts.timeout": 1.0})
    assert found == [("slow", "timeout", "no answer after 1 s (rollouts.timeout)")] * 2
