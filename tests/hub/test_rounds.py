"""Rounds of a training through a real hub: policies by status, refills, a step's deadline, dynamic sampling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from lightning_hub.backend import Endpoint
from lightning_hub.rollouts.plan import Plan
from lightning_sdk.settings import Settings
from tests.hub.bandit_backend import backend
from tests.hub.hubs import Hub, end, reward
from tests.hub.runners import SETTINGS, TASKS, Runner, ask_engine, call, good, score
from tests.waiting import wait_for

Train = Callable[..., Runner]


def a_step(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "step")


def fail(assignment: dict[str, Any], status: str, *rewards: float) -> list[Any]:
    """A rollout that called the engine, earned this, and ended so."""
    key = assignment["key"]
    given = [reward(key, value) for value in rewards]
    return [call(assignment, ask_engine(assignment)), *given, end(key, status, "ValueError: x")]


# --- policies and refills


def test_groups_stay_whole(train: Train) -> None:
    """The first rollout of each group fails: another one of its task takes its place, and both are counted."""
    runner, seen = train(), set[str]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train" and assignment["group"] not in seen:
            seen.add(assignment["group"])
            return fail(assignment, "agent_error")
        return good(assignment)

    runner.begin()
    step = runner.play(agent, a_step)["metrics"]
    assert (step["rollouts_agent_error"], step["rollouts_ok"], step["refilled"], step["retries"]) == (3, 12, 3, 0)
    assert (step["rows_seen"], step["groups"]) == (12, 3)
    first = [each for each in runner.leased if each["group"].startswith("1-")]
    assert set(Counter(each["group"] for each in first).values()) == {5}
    assert {
        len({each["task_id"] for each in first if each["group"] == group}) for group in seen if group[0] == "1"
    } == {1}
    assert len({each["id"] for each in first}) == 15


def test_refills_are_bounded(train: Train) -> None:
    """A place in which rollouts keep failing stays empty after failure.refills generations."""
    runner, bad = train(), list[str]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["group"] == "1-2":
            bad.append(assignment["id"])
            return fail(assignment, "reward_error")
        return good(assignment)

    runner.begin({"failure.refills": 2, "failure.max_failed": 0.9})
    step = runner.play(agent, a_step)["metrics"]
    assert (len(bad), len(set(bad))) == (12, 12)
    assert (step["rollouts_reward_error"], step["refilled"], step["rows_seen"]) == (12, 8, 8)


def test_every_status_can_be_tried_again(train: Train) -> None:
    """failure.agent_error='retry': the same rollout under a new key, and only its last attempt counts."""
    runner = train()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train" and assignment["attempt"] == 1:
            return fail(assignment, "agent_error", 100.0)
        return good(assignment)

    runner.begin({"failure.agent_error": "retry", "failure.backoff": 0.1})
    step = runner.play(agent, a_step)["metrics"]
    assert (step["retries"], step["rollouts_ok"], step["refilled"]) == (12, 12, 0)
    assert step["reward_mean"] <= 1.0


def test_training_on_failures(train: Train) -> None:
    """failure.agent_error='train': a failed rollout earns failure.reward beside what it had earned, and has rows."""
    runner, seen = train(), list[str]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train":
            seen.append(assignment["id"])
            return fail(assignment, "agent_error", 0.25) if len(seen) % 2 else score(assignment, 1.0)
        return good(assignment)

    runner.begin({"failure.agent_error": "train", "failure.reward": -1.0})
    step = runner.play(agent, a_step)["metrics"]
    assert (step["rollouts_agent_error"], step["rollouts_ok"], step["refilled"], step["retries"]) == (6, 6, 0, 0)
    assert step["rows_seen"] == 12
    assert step["reward_mean"] == pytest.approx((1.0 + (0.25 - 1.0)) / 2)


def test_an_evaluation_is_tried_again_and_not_refilled(train: Train) -> None:
    """A task whose rollout fails for good has no score: another draw would flatter the model."""
    runner = train()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "evaluate" and (assignment["task"] == TASKS[0] or assignment["attempt"] == 1):
            return [end(assignment["key"], "infrastructure_error", "no route")]
        return good(assignment)

    runner.begin({"failure.retries": 1, "failure.refills": 3})
    before = runner.play(agent, lambda event: event["type"] == "evaluation")
    assert (before["n"], before["failed"]) == (1, 1)
    evaluated = [each for each in runner.leased if each["mode"] == "evaluate"]
    tried = sorted((TASKS.index(each["task"]), each["attempt"]) for each in evaluated)
    assert tried == [(0, 1), (0, 2), (1, 1), (1, 2)]


# --- the deadline


def test_one_straggler_does_not_hold_a_step(train: Train) -> None:
    """After rollouts.deadline the step goes on without it, as a timeout; what it says later does not count."""
    runner, slow = train(), list[dict[str, Any]]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train" and not slow:
            slow.append(assignment)
            return []
        events = good(assignment)
        if slow and assignment["group"].startswith("2-") and len(slow) == 1:
            slow.append(assignment)
            events += [reward(slow[0]["key"], 100.0), end(slow[0]["key"])]
        return events

    runner.begin({"rollouts.deadline": 6.0, "rollouts.timeout": 60.0, "failure.refills": 3}, held_out=[])
    step = runner.play(agent, a_step)["metrics"]
    assert (step["rollouts_timeout"], step["deadline_timeouts"], step["rollouts_ok"]) == (1, 1, 11)
    assert (step["retries"], step["refilled"], step["rows_seen"]) == (0, 0, 11)
    second = runner.play(agent, lambda event: a_step(event) and event["step"] == 2)["metrics"]
    assert (second["rollouts_ok"], second["deadline_timeouts"]) == (12, 0)
    assert second["reward_mean"] <= 1.0
    assert runner.watcher.ask("status")["late"] >= 1


def test_what_came_after_the_hub_ended_a_rollout(train: Train) -> None:
    """With failure.timeout='train', a reward that an agent sends after its time is not in what it earned."""
    runner, slow = train(), list[dict[str, Any]]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train" and not slow:
            slow.append(assignment)
            key = assignment["key"]
            return [call(assignment, ask_engine(assignment)), reward(key, 0.5, name="step")]
        return score(assignment, 0.5)

    settings = {"rollouts.timeout": 0.2, "rollouts.concurrency": 11, "failure.timeout": "train", "failure.reward": -2.0}
    runner.begin(settings, held_out=[])
    for each in runner.lease(16, 10.0):
        runner.send(agent(each))
    key = slow[0]["key"]
    wait_for(lambda: key not in runner.client.ask("renew", runner=runner.name), "the end of the slow one's time")
    runner.send([reward(key, 100.0), end(key)])
    step = runner.play(agent, a_step)["metrics"]
    assert (step["rollouts_timeout"], step["rollouts_ok"], step["rows_seen"]) == (1, 11, 12)
    assert step["reward_mean"] == pytest.approx((11 * 0.5 + (0.5 - 2.0)) / 12)


# --- dynamic sampling

MIXED: list[dict[str, Any]] = [{"question": f"which arm? {number}", "flat": number % 2 == 0} for number in range(10)]


class Mixed:
    """Rollouts of a group differ in what they earn, but for tasks marked as flat."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, assignment: dict[str, Any]) -> list[Any]:
        self._seen[assignment["group"]] += 1
        return score(assignment, 1.0 if assignment["task"]["flat"] else self._seen[assignment["group"]] % 2)


def tasks_of(runner: Runner, step: int) -> list[int]:
    """Tasks of a step's groups, in the order of their places."""
    found: dict[int, int] = {}
    for each in runner.leased:
        at, place = map(int, each["group"].split("-"))
        if at == step:
            found[place] = MIXED.index(each["task"])
    assert sorted(found) == list(range(len(found)))
    return [found[place] for place in range(len(found))]


def plan_of(step: int, **settings: Any) -> tuple[list[int], list[int]]:
    """Tasks of a step as planned, and the further ones in their order."""
    chosen = Settings.from_dict({**SETTINGS, **settings})
    plan, endpoint = Plan(settings=chosen, backend=backend, tasks=MIXED, held_out=[]), Endpoint("", "", "")
    own = plan.of_step(step, endpoint)
    further = plan.of_further(step, 0, 12, endpoint)
    return [MIXED.index(each.task) for each in own[::4]], [MIXED.index(each.task) for each in further[::4]]


@pytest.mark.parametrize("rounds", [1, 4])
def test_groups_without_signal_are_replaced(train: Train, rounds: int) -> None:
    """Each by one of a further task, in so many rounds at most; a batch has as many groups as without it."""
    runner = train()
    runner.begin({"algorithm.dynamic_sampling": rounds, "steps": 3}, tasks=MIXED, held_out=[])
    runner.play(Mixed())
    for step in runner.steps():
        own, further = plan_of(int(step["step"]))
        flat, used = sum(MIXED[task]["flat"] for task in own), 0
        for _ in range(rounds):
            used, flat = used + flat, sum(MIXED[task]["flat"] for task in further[used : used + flat])
        assert tasks_of(runner, int(step["step"])) == own + further[:used]
        assert step["resampled_groups"] == used
        assert step["groups"] == 3 + used
        assert step["groups_without_signal"] == used + flat
        assert step["rows_seen"] == 12
        assert step["rollouts_ok"] == 4 * (3 + used)


def test_further_tasks_are_new_to_the_step() -> None:
    """None of the step's own comes before all others, and their order depends on the seed and the step alone."""
    for step in (1, 2, 9):
        own, further = plan_of(step)
        assert sorted(own + further[:7]) == list(range(10))
        assert set(further[7:10]) == set(own)
        assert plan_of(step) == (own, further)
        assert plan_of(step, seed=1) != (own, further)
    assert plan_of(1)[1] != plan_of(2)[1]


def test_no_time_for_further_tasks(train: Train) -> None:
    """When the deadline has passed, the step goes on with the groups it has."""
    runner, held = train(), list[bytes]()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if not held:
            held.append(assignment["key"])
            return []
        return score(assignment, 1.0)

    runner.begin({"algorithm.dynamic_sampling": 3, "rollouts.deadline": 6.0}, tasks=MIXED, held_out=[])
    step = runner.play(agent, a_step)["metrics"]
    assert (step["resampled_groups"], step["deadline_timeouts"], step["rows_seen"]) == (0, 1, 11)
    assert step["groups_without_signal"] == 3


def test_tasks_after_a_kill_are_the_same(train: Train) -> None:
    """kill -9 in the middle of a step with replaced groups: resumed, each step has the tasks it would have had."""
    runner = train()
    settings = {"algorithm.dynamic_sampling": 1, "steps": 4, "save_every": 1}
    runner.begin(settings, tasks=MIXED, held_out=[])
    runner.play(Mixed(), lambda event: a_step(event) and event["step"] == 2)
    hub: Hub = runner.hub
    hub.kill()
    runner.close()
    hub.start()
    with closing(Runner(hub)) as again:
        last = again.train(Mixed(), settings, tasks=MIXED, held_out=[], resume=True)
    assert last["type"] == "finished", last
    for step in again.steps():
        own, further = plan_of(int(step["step"]))
        assert tasks_of(again, int(step["step"])) == own + further[: int(step["resampled_groups"])]


def test_turns(train: Train) -> None:
    """A step in which no role's turn has come is recorded without an update."""
    runner = train()
    runner.begin({"credit.schedule": "2/2", "steps": 4})
    runner.play(good)
    assert [(step["version"], step.get("rows_seen", 0)) for step in runner.steps()] == [
        (0, 0),
        (1, 12),
        (1, 0),
        (2, 12),
    ]


def test_the_running_mean_goes_on_after_a_kill(train: Train) -> None:
    """It is found again in the last step's metrics."""
    runner = train()
    settings = {"credit.advantage": "running_mean", "save_every": 1, "steps": 3}
    runner.begin(settings, tasks=TASKS, held_out=[])
    runner.play(lambda each: score(each, 1.0), lambda event: a_step(event) and event["step"] == 2)
    hub = runner.hub
    hub.kill()
    runner.close()
    hub.start()
    with closing(Runner(hub)) as again:
        again.train(lambda each: score(each, 3.0), settings, tasks=TASKS, held_out=[], resume=True)
    [third] = again.steps()
    assert third["running_mean/solver"] == pytest.approx(0.9 * 1.0 + 0.1 * 3.0)
