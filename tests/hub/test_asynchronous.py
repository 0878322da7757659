"""Asynchronous training: a bound of 0 gives the synchronous loop; with more, rollouts run while the learner works."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_hub.backend import Endpoint
from lightning_hub.rollouts.plan import Plan
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from tests.hub.bandit_backend import Bandit, backend
from tests.hub.hubs import Hub
from tests.hub.runners import SETTINGS, TASKS, Runner, Seeded, good, seed

Train = Callable[..., Runner]
STEPS, GROUP = 6, 4


def a_step(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["type"] == "step" and event["step"] == number


def plan_of(step: int) -> list[int]:
    """Tasks of a step."""
    plan = Plan(settings=Settings.from_dict(SETTINGS), backend=backend, tasks=TASKS, held_out=[])
    return [TASKS.index(each.task) for each in plan.of_step(step, Endpoint("", "", ""))[::GROUP]]


def tasks_of_steps(runner: Runner) -> dict[int, list[int]]:
    """Step -> the tasks of its groups, in the order of their places."""
    found: dict[int, dict[int, int]] = {}
    for each in runner.leased:
        if each["mode"] == "train":
            step, place = map(int, each["group"].split("-"))
            found.setdefault(step, {})[place] = TASKS.index(each["task"])
    return {step: [of_step[place] for place in sorted(of_step)] for step, of_step in sorted(found.items())}


def weights(folder: Path) -> list[list[float]]:
    """The bandit's numbers after each step, as its checkpoints have them."""
    saved = sorted((folder / "checkpoints").glob("step-*/bandit.json"))
    return [json.loads(path.read_text())["logits"] for path in saved]


def reference(folder: Path) -> list[list[float]]:
    """The same, by a loop that samples a step, learns from it, and goes on; nothing of the hub's but its tasks."""
    bandit = Bandit(Settings(), folder)
    bandit.close()  # its endpoint; the weights are asked here
    logits, after = np.zeros(4), []
    for step in range(1, STEPS + 1):
        bandit._logits = logits
        chances = np.exp(logits) / np.exp(logits).sum()
        gradient = np.zeros(4)
        for place, task in enumerate(plan_of(step)):
            answers = [bandit.answer(1.0, seed(step, place, number)) for number in range(GROUP)]
            arms = [int(str(each["choices"][0]["message"]["content"])) for each in answers]  # type: ignore[index]
            rewards = np.array([float(arm == TASKS[task]["best"]) for arm in arms])
            baselines = (rewards.sum() - rewards) / (GROUP - 1)
            for arm, advantage in zip(arms, rewards - baselines, strict=True):
                gradient += advantage * (np.eye(4)[arm] - chances) / (GROUP * len(plan_of(step)))
        logits = logits + 4.0 * gradient
        after.append(logits.tolist())
    return after


def test_a_bound_of_0_is_the_synchronous_loop(train: Train, tmp_path: Path) -> None:
    """The same tasks, every token of the newest version, and after every step the same weights as a plain loop has."""
    runner, agent = train(), Seeded()
    last = runner.train(agent, {"save_every": 1, "rollouts.staleness": 0}, held_out=[])
    assert last["type"] == "finished", last
    assert tasks_of_steps(runner) == {step: plan_of(step) for step in range(1, STEPS + 1)}
    assert agent.versions == {step: [step - 1] * 12 for step in range(1, STEPS + 1)}
    assert [step["staleness_max"] for step in runner.steps()] == [0] * STEPS
    expected = reference(tmp_path)
    assert np.ptp(expected[-1]) > 0.5
    np.testing.assert_allclose(weights(runner.hub.folder), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bound", [1, 2])
def test_rollouts_run_while_the_learner_works(train: Train, bound: int) -> None:
    """While an update waits, the rounds of `bound` further steps are run to their end, and no more; each of their
    tokens is at most so many versions old, and the metrics say so."""
    runner, agent = train(), Seeded()
    runner.begin({"model": "patient", "rollouts.staleness": bound, "steps": STEPS}, held_out=[])
    for step in range(1, STEPS + 1):
        offered = min(step + bound, STEPS)
        play_until(runner, agent, 12 * offered)
        assert runner.lease(16, 0.3) == []
        assert sorted(agent.versions) == list(range(1, offered + 1))
        (runner.hub.folder / f"go-{step}").touch()
    assert runner.play(agent)["type"] == "finished"
    steps = runner.steps()
    for told in steps:
        number = int(told["step"])
        ages = [number - 1 - version for version in agent.versions[number]]
        assert all(0 <= age <= bound for age in ages)
        assert (told["staleness_max"], told["staleness_mean"]) == (max(ages), pytest.approx(np.mean(ages)))
        assert told["staleness"] == max(ages)
        assert (told["rollouts_ok"], told["rows_seen"], told["version"]) == (12, 12, number)
    assert steps[-1]["staleness"] == bound
    assert tasks_of_steps(runner) == {step: plan_of(step) for step in range(1, STEPS + 1)}


def play_until(runner: Runner, agent: Seeded, count: int) -> None:
    """Run rollouts of training until there were so many."""
    deadline = time.monotonic() + 60
    while sum(map(len, agent.versions.values())) < count:
        assert time.monotonic() < deadline, runner.events
        for each in runner.lease(4, 0.2):
            runner.send(agent(each))


def test_a_bound_needs_a_correction(train: Train) -> None:
    """Rollouts of an older model need importance sampling."""
    with pytest.raises(SettingError, match="staleness=1"):
        train().begin({"rollouts.staleness": 1, "importance.kind": "off"})


def test_kill_9_with_rounds_ahead(train: Train) -> None:
    """Resumed, the run repeats what was ahead, with the tasks that each step was to have, and loses and doubles
    nothing; no token is older than the bound allows."""
    runner = train()
    settings = {"model": "patient", "rollouts.staleness": 2, "save_every": 2}
    runner.begin(settings, held_out=[])
    let_go(runner.hub, 1, 2, 3)
    agent = Seeded()
    play_until(runner, agent, 12 * 6)
    hub = runner.hub
    hub.kill()
    runner.close()
    assert tasks_of_steps(runner) == {step: plan_of(step) for step in range(1, 7)}
    hub.start()
    let_go(hub, 4, 5, 6)
    again = Seeded()
    with closing(Runner(hub)) as resumed:
        last = resumed.train(again, settings, held_out=[], resume=True)
        assert last["type"] == "finished", last
        started = next(event for event in resumed.events if event["type"] == "started")
        assert started["step"] == 2
        assert tasks_of_steps(resumed) == {step: plan_of(step) for step in (3, 4, 5, 6)}
        for step in resumed.steps():
            number = int(step["step"])
            assert all(0 <= number - 1 - version <= 2 for version in again.versions[number])
            assert (step["rollouts_ok"], step["version"]) == (12, number)
    lines = [json.loads(line)["step"] for line in (hub.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4, 5, 6]


def let_go(hub: Hub, *steps: int) -> None:
    """Let these updates through."""
    for step in steps:
        (hub.folder / f"go-{step}").touch()


def test_an_evaluation_does_not_wait_for_rounds_ahead(train: Train) -> None:
    """Its rollouts are handed out before those that nobody needs yet, and it is measured with the newest version."""
    runner, order = train(), list[str]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        order.append(assignment["group"])
        return good(assignment)

    runner.begin({"rollouts.staleness": 3, "rollouts.concurrency": 1, "evaluation.every": 1, "steps": 4})
    while "step-1-1" not in order:
        for each in runner.lease(1, 1.0):
            runner.send(agent(each))
    assert not [group for group in order if group.startswith(("3-", "4-"))]
    assert runner.play(agent)["type"] == "finished"


def test_a_run_with_rounds_ahead_can_be_stopped(train: Train) -> None:
    """What is ahead is dropped, what was learned is kept, and nothing is left under way."""
    runner, agent = train(), Seeded()
    runner.begin({"rollouts.staleness": 2, "steps": 1000, "save_every": 1000}, held_out=[])
    runner.play(agent, a_step(2))
    assert runner.hub.stop() == 0
    report = json.loads((runner.hub.folder / "report.json").read_text())
    assert report["status"] == "stopped"
    assert report["checkpoint"] == f"checkpoints/step-{report['steps']:05d}"
    assert (runner.hub.folder / "backend-closed").exists()


def test_a_failure_drops_what_is_ahead(train: Train) -> None:
    """After the last event nothing is handed out, and the hub takes another training."""
    runner = train()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["group"].startswith("2-"):
            return [[6, assignment["key"], "agent_error", "ValueError: x", time.time_ns(), ""]]
        return good(assignment)

    last = runner.train(agent, {"rollouts.staleness": 2, "failure.refills": 0}, held_out=[])
    assert (last["type"], last["error"][0]) == ("failed", "RolloutsFailed")
    assert runner.lease(16, 0.3) == []
    assert runner.watcher.ask("status")["round"] == {"done": 0, "active": 0, "queued": 0}


# --- before the first checkpoint


def test_killed_before_its_first_checkpoint(train: Train) -> None:
    """Resumed, a run begins again at step 1, keeps the score from before, and has the tasks it would have had."""
    runner = train()
    settings = {"save_every": 100}
    runner.begin(settings)
    runner.play(good, a_step(3))
    before = (runner.hub.folder / "evaluations.jsonl").read_text()
    hub = runner.hub
    hub.kill()
    runner.close()
    hub.start()
    with closing(Runner(hub)) as again:
        last = again.train(good, settings, resume=True)
        assert last["type"] == "finished", last
        assert [int(step["step"]) for step in again.steps()] == list(range(1, STEPS + 1))
        assert tasks_of_steps(again) == {step: plan_of(step) for step in range(1, STEPS + 1)}
    assert (hub.folder / "evaluations.jsonl").read_text().startswith(before)
    assert [each["name"] for each in evaluations(hub)] == ["before", "after"]


def test_killed_while_it_is_measured_before(train: Train) -> None:
    """Resumed, a run is measured before training after all: a half measurement is none."""
    runner = train()
    runner.begin()
    [first, _] = runner.lease(2, 10.0)
    runner.send(good(first))
    runner.watcher.ask("status")
    hub = runner.hub
    hub.kill()
    runner.close()
    assert json.loads((hub.folder / "config.json").read_text())["settings"]["steps"] == STEPS
    assert evaluations(hub) == []
    hub.start()
    with closing(Runner(hub)) as again:
        last = again.train(good, resume=True)
        assert last["type"] == "finished", last
    assert [(each["name"], each["n"]) for each in evaluations(hub)] == [("before", 2), ("after", 2)]


def evaluations(hub: Hub) -> list[dict[str, Any]]:
    path = hub.folder / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
