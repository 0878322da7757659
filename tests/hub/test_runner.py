"""`lightning.train` with the bandit: what a runner does with rollouts that the hub has ended, and a hub that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning
from lightning_sdk import markers
from lightning_sdk.rollouts import runner
from tests.processes import descendants
from tests.waiting import wait_for

TASKS: list[dict[str, Any]] = [{"question": f"which arm? {number}"} for number in range(5)]
SMALL: dict[str, Any] = {
    "backend": "bandit",
    "rollouts.tasks_per_step": 2,
    "rollouts.group_size": 2,
    "quiet": True,
    "algorithm.aggregation": "token-mean",
}


@pytest.fixture
def bandit(bandit_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hubs of this test find the bandit backend, and the solver is a role to train."""
    monkeypatch.setenv("PYTHONPATH", str(bandit_site))
    monkeypatch.setitem(markers.agent.declared, "solver", True)
    yield
    lightning.shutdown()


def ask(question: str) -> str:
    with OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


async def aask(question: str) -> str:
    async with AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": question}]
        reply = await client.chat.completions.create(model="gpt", messages=messages)
        return reply.choices[0].message.content or ""


def best(task: dict[str, Any], answer: str) -> float:
    return float(answer == "3")


def test_coroutines_that_the_hub_has_ended_are_cancelled(
    bandit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four rollouts hang, in both places that there are: the next step's run in them, with both cancelled."""
    monkeypatch.setattr(runner, "_HEARTBEAT_SECONDS", 0.2)
    begun, cancelled, both_cancelled = list[str](), list[str](), asyncio.Event()

    @lightning.agent(role="solver", trainable=True)
    async def agent(task: dict[str, Any]) -> str:
        begun.append(task["question"])
        if len(begun) in {4, 5}:  # the first one is measured
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancelled.append(task["question"])
                if len(cancelled) == 2:
                    both_cancelled.set()
                raise
        if len(begun) > 5:  # these end as timeouts unless the training goes on without the two
            await both_cancelled.wait()
        return await aask(task["question"])

    report = lightning.train(agent, TASKS, best, held_out=[TASKS[0]], runs=tmp_path, steps=2, **hanging(SMALL))
    assert report.values["rollouts_by_status"]["timeout"] == 2
    assert report.values["rollouts_by_status"]["ok"] == 6
    assert sorted(cancelled) == sorted(begun[3:5])


def test_threads_that_the_hub_has_ended_keep_no_place(
    bandit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be stopped, but its place is given to the next rollout."""
    monkeypatch.setattr(runner, "_HEARTBEAT_SECONDS", 0.2)
    begun, released = list[str](), threading.Event()

    @lightning.agent(role="solver", trainable=True)
    def agent(task: dict[str, Any]) -> str:
        begun.append(task["question"])
        if len(begun) in {4, 5}:  # the first one is measured
            released.wait(100)
        return ask(task["question"])

    try:
        report = lightning.train(agent, TASKS, best, held_out=[TASKS[0]], runs=tmp_path, steps=2, **hanging(SMALL))
    finally:
        released.set()
    assert report.values["rollouts_by_status"]["timeout"] == 2
    assert report.values["rollouts_by_status"]["ok"] == 6


def hanging(settings: dict[str, Any]) -> dict[str, Any]:
    """Two places, and a step that does not wait for the rollouts in them."""
    return {**settings, "rollouts.concurrency": 2, "rollouts.deadline": 4.0, "rollouts.timeout": 90.0}


@pytest.mark.parametrize(
    ("save_every", "told"),
    [(100, r"no checkpoint yet: .*--resume .*starts again at step 1"), (1, r"--resume .*after step \d")],
)
def test_a_hub_that_dies(bandit: None, tmp_path: Path, save_every: int, told: str) -> None:
    """The message says whether there is a checkpoint to go on from, and what it says to type goes on from there."""

    @lightning.agent(role="solver", trainable=True)
    def agent(task: dict[str, Any]) -> str:
        return ask(task["question"])

    run, settings = tmp_path / "run", {**SMALL, "save_every": save_every}
    killer = threading.Thread(target=kill_hub, args=(lambda: len(steps(run)) >= 2,))
    killer.start()
    with pytest.raises(lightning.HubGone, match=told):
        lightning.train(agent, TASKS, best, runs=tmp_path, name="run", steps=500, **settings)
    killer.join()
    done = len(steps(run))
    report = lightning.train(agent, TASKS, best, runs=tmp_path, resume=run, steps=done + 1, **settings)
    assert report.folder == run
    assert steps(run) == list(range(1, done + 2))


def test_a_hub_that_dies_in_an_evaluation(bandit: None, tmp_path: Path) -> None:
    """An evaluation cannot be resumed, and the message does not say that it can."""

    @lightning.agent(role="solver", trainable=True)
    def agent(task: dict[str, Any]) -> str:
        kill_hub(lambda: True)
        return ask(task["question"])

    with pytest.raises(lightning.HubGone, match="Run it again") as raised:
        lightning.evaluate(agent, TASKS, best, runs=tmp_path, backend="bandit", quiet=True)
    assert "--resume" not in str(raised.value)


def steps(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def kill_hub(when: Callable[[], bool]) -> None:
    """kill -9 the hub that this process started, once it is time."""
    wait_for(when)
    for pid in descendants("lightning_hub", os.getpid()):
        os.kill(pid, signal.SIGKILL)
