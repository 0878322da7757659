"""Trainings in which no group has a signal: a real hub warns after the first step, stops in time, and reports it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hub.hubs import end, reward
from tests.hub.runners import Agent, Runner, ask_engine, call, good, score

ROLES = {"declared_roles": {"solver": True}}


def earning(value: Callable[[dict[str, Any]], float]) -> Agent:
    """An agent whose answer is the arm and whose reward is given."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        answer, key = ask_engine(assignment), assignment["key"]
        arm = answer["choices"][0]["message"]["content"]
        given = reward(key, value(assignment))
        return [call(assignment, answer), given, end(key, output=arm)]

    return agent


@pytest.fixture
def runner(train: Callable[..., Runner]) -> Runner:
    """On a hub of this test: its folder holds no other run."""
    return train()


def step_of(assignment: dict[str, Any]) -> int:
    return int(assignment["group"].partition("-")[0]) if assignment["mode"] == "train" else 0


def warnings(runner: Runner) -> list[str]:
    return [event["text"] for event in runner.events if event["type"] == "warning"]


def report(runner: Runner) -> dict[str, Any]:
    folder = next(event["run"] for event in runner.events if event["type"] == "started")
    found: dict[str, Any] = json.loads(Path(folder, "report.json").read_text())
    return found


def kinds(found: dict[str, Any]) -> list[str]:
    return [f"{each['severity']} {each['kind']}" for each in found["findings"]]


def test_the_first_step_is_told_with_three_answers(runner: Runner) -> None:
    """Loudly, with task, answer and reward; and once, although two steps are alike."""
    last = runner.train(earning(lambda _: 0.0), {"steps": 2}, **ROLES)
    assert last["type"] == "finished"
    (text,) = [each for each in warnings(runner) if "no group has a signal" in each]
    assert text.startswith("NOTHING WAS LEARNED in step 1: no group has a signal: in each of 3 groups")
    assert text.count("\n  task    {") == text.count("\n  answer  ") == text.count("\n  reward  0\n") == 3
    assert '"question": "which arm?' in text and "Every answer was wrong" in text
    assert "stops after 5 steps like this one" in text
    order = [event["type"] for event in runner.events if event["type"] != "pace"]
    assert order.index("warning") == order.index("step") + 1


def test_it_stops_after_a_few_such_steps(runner: Runner) -> None:
    """With the finding's words and what to type to go on; the steps are kept, and the report has the finding once."""
    last = runner.train(earning(lambda _: 0.0), {"steps": 9, "failure.flat_steps": 3}, **ROLES)
    assert last["type"] == "failed"
    name, text = last["error"]
    assert name == "NothingToTrain" and text.startswith("no group has a signal: in each of 3 groups")
    assert "All 3 steps so far were like that" in text and "--set failure.flat_steps=0" in text
    assert [step["step"] for step in runner.steps()] == [1, 2, 3]
    found = report(runner)
    assert found["status"] == "failed" and text in found["error"] and kinds(found) == []


def test_it_goes_on_if_it_is_told_to(runner: Runner) -> None:
    """0 is for ever; the end then has the finding that `check` has, and nothing advises more steps."""
    last = runner.train(earning(lambda _: 0.0), {"steps": 6, "failure.flat_steps": 0}, **ROLES)
    assert last["type"] == "finished"
    assert kinds(last["report"]) == ["fatal no signal"]
    (finding,) = last["report"]["findings"]
    assert "from step 1 to 6 all rewards of the role solver were equal" in finding["what"]
    assert finding["what"].count("\n  answer  ") == 3 and "Every answer was wrong" in finding["cause"]
    folder = Path(next(event["run"] for event in runner.events if event["type"] == "started"))
    page = (folder / "report.md").read_text()
    assert "Every answer was wrong" in page and "Not shown to be better" in page and "could show it" not in page


def test_one_signal_is_enough_to_go_on(runner: Runner) -> None:
    """What learned something once is not stopped by steps without a signal, which may be of solved tasks."""
    first = {"place": 0}

    def value(assignment: dict[str, Any]) -> float:
        first["place"] += step_of(assignment) == 1
        return float(first["place"] == 2 and step_of(assignment) == 1)

    last = runner.train(earning(value), {"steps": 5, "failure.flat_steps": 2}, **ROLES)
    assert last["type"] == "finished" and not any("NOTHING WAS LEARNED" in each for each in warnings(runner))


@pytest.mark.parametrize(("advantage", "stops"), [("rloo", True), ("running_mean", False)])
def test_tasks_that_are_compared_with_each_other(runner: Runner, advantage: str, stops: bool) -> None:
    """Rewards that differ between tasks only are a signal for a running mean, and none for a group."""
    agent = earning(lambda each: float(each["task_id"] % 2))
    last = runner.train(agent, {"steps": 4, "failure.flat_steps": 2, "credit.advantage": advantage}, **ROLES)
    assert last["type"] == ("failed" if stops else "finished"), last
    assert stops == ("differ between tasks only" in str(last.get("error")))


def test_further_tasks_are_tried_before_it_is_told(runner: Runner) -> None:
    """With dynamic sampling a step has a signal if one of its further tasks has."""
    played = {"groups": dict[str, int]()}

    def agent(assignment: dict[str, Any]) -> list[Any]:
        _, _, place = assignment["group"].partition("-")
        number = played["groups"][assignment["group"]] = played["groups"].get(assignment["group"], 0) + 1
        return score(assignment, float(assignment["mode"] == "train" and int(place) >= 3 and number % 2))

    settings = {"steps": 2, "failure.flat_steps": 1, "algorithm.dynamic_sampling": 1}
    last = runner.train(agent, settings, **ROLES)
    assert last["type"] == "finished" and warnings(runner) == []


def test_a_role_whose_turn_is_later_counts(runner: Runner) -> None:
    """Where one role has a signal there is something to learn, also if it is not its turn yet."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        key, (one, other) = assignment["key"], (ask_engine(assignment), ask_engine(assignment))
        arm = float(other["choices"][0]["message"]["content"])
        return [
            call(assignment, one, role="writer"),
            call(assignment, other, role="checker"),
            reward(key, 0.0, "writer"),
            reward(key, arm, "checker"),
            end(key),
        ]

    settings = {"steps": 3, "failure.flat_steps": 2}
    later = {"role.writer.schedule": "1-2", "role.checker.schedule": "3-"}
    assert runner.train(agent, settings | later)["type"] == "finished"


def test_everything_truncated_stops_as_well(runner: Runner) -> None:
    """Rewards differ, and `length.truncated` leaves out every token: that is told, and not in silence."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        answer, key = ask_engine(assignment), assignment["key"]
        answer["choices"][0]["finish_reason"] = "length"
        arm = float(answer["choices"][0]["message"]["content"])
        return [call(assignment, answer), reward(key, arm), end(key)]

    settings = {"steps": 4, "failure.flat_steps": 2, "length.truncated": "exclude"}
    last = runner.train(agent, settings, **ROLES)
    assert last["type"] == "failed" and "length.truncated=exclude leaves those out" in last["error"][1]
    assert any("NOTHING WAS LEARNED in step 1" in each for each in warnings(runner))


def test_a_run_that_goes_on_remembers_its_signal(runner: Runner) -> None:
    """--resume of a run that learned something is not stopped."""

    def agent(assignment: dict[str, Any]) -> list[Any]:
        return good(assignment) if step_of(assignment) == 1 else score(assignment, 0.0)

    assert runner.train(agent, {"steps": 2, "failure.flat_steps": 1}, **ROLES)["type"] == "finished"
    again = runner.train(agent, {"steps": 4, "failure.flat_steps": 1}, resume=True, **ROLES)
    assert again["type"] == "finished" and again["report"]["steps"] == 4
