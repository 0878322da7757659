"""Training through a real hub process with a third party's backend: the loop, its failures, and going on after them."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk.errors import HubError, SettingError
from lightning_sdk.rollouts.tasks import task_id
from tests.hub.hubs import Client, begin, end, reward
from tests.hub.runners import TASKS, Runner, ask_engine, call, good


def a_step(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "step")


# --- what goes well


def test_a_bandit_learns(train: Callable[..., Runner]) -> None:
    """Reward rises, the held-out score goes from 0 to 1, and the run's folder tells it."""
    runner = train()
    last = runner.train(good, declared_roles={"solver": True})
    assert last["type"] == "finished", last
    report = last["report"]
    assert (report["held_out"]["before"]["mean"], report["held_out"]["after"]["mean"]) == (0.0, 1.0)
    assert (report["status"], report["steps"], report["rollouts"]) == ("finished", 6, 6 * 12)
    assert report["checkpoint"] == "checkpoints/step-00006"
    steps = runner.steps()
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["reward_mean"] > steps[0]["reward_mean"]
    assert all(step["rows_seen"] == 12 == step["rollouts_ok"] for step in steps)
    assert all(abs(step["seconds"] - step["seconds_generate"] - step["seconds_update"]) < 1e-6 for step in steps)
    assert [event["type"] for event in runner.events][:3] == ["status", "started", "evaluation"]
    folder = Path(runner.events[1]["run"])
    assert json.loads((folder / "report.json").read_text())["verdict"] == report["verdict"]
    assert json.loads((folder / "config.json").read_text())["facts"]["learning_rate"] == 4.0
    saved = [f"checkpoints/step-{step:05d}" for step in (2, 4, 6)]
    assert sorted(str(path.relative_to(folder)) for path in (folder / "checkpoints").iterdir()) == saved
    with sqlite3.connect(folder / "hub.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM steps").fetchone() == (6,)
        found = database.execute("SELECT version, checkpoint FROM versions WHERE checkpoint != ''").fetchall()
    database.close()
    assert found == list(zip((2, 4, 6), saved, strict=True))


def test_a_bandit_learns_from_groups_of_one(train: Callable[..., Runner]) -> None:
    """With a baseline that needs no group: every rollout is of another task, or of one that came before."""
    settings = {"rollouts.group_size": 1, "rollouts.tasks_per_step": 12, "credit.advantage": "running_mean"}
    last = train().train(good, settings, declared_roles={"solver": True})
    assert last["type"] == "finished", last
    report = last["report"]
    assert (report["held_out"]["before"]["mean"], report["held_out"]["after"]["mean"]) == (0.0, 1.0)
    assert (report["steps"], report["rollouts"]) == (6, 6 * 12)


def test_assignments_say_how_to_sample(train: Callable[..., Runner]) -> None:
    """Training rollouts replace the temperature, evaluation is greedy; groups lie beside each other."""
    runner = train()
    runner.begin({"sampling.temperature": 0.7, "roles": ("solver",)}, declared_roles={"solver": True})
    runner.play(good, a_step)
    trained = [each for each in runner.leased if each["mode"] == "train"]
    evaluated = [each for each in runner.leased if each["mode"] == "evaluate"]
    assert {json.dumps(each["sampling"]) for each in trained} == {
        json.dumps({"temperature": 0.7, "whole_distribution": 1.0, "free_choice": 1.0, "max_tokens_default": 256})
    }
    assert {json.dumps(each["sampling"]) for each in evaluated} == {
        json.dumps({"temperature": 0.0, "free_choice": 1.0, "max_tokens_default": 256})
    }
    assert len(evaluated) == 2
    groups = [each["group"] for each in trained]
    assert groups[:12] == sorted(groups[:12])
    assert [groups[:12].count(group) for group in sorted(set(groups[:12]))] == [4, 4, 4]
    assert len({each["key"] for each in runner.leased}) == len(runner.leased)
    assert all(each["task_id"] == task_id(each["task"]) and each["roles"] == ["solver"] for each in trained)


def test_a_gradient_that_is_not_finite_is_told_in_its_step(train: Callable[..., Runner]) -> None:
    """As a warning right after that step, and the training goes on."""
    runner = train()
    assert runner.train(good, {"model": "lossy", "steps": 3})["type"] == "finished"
    told = [(at, event) for at, event in enumerate(runner.events) if "not finite" in event.get("text", "")]
    assert [event["type"] for _, event in told] == ["warning"]
    at, event = told[0]
    assert event["text"].startswith(
        "the gradient of step 2 was not finite (loss is nan), and the step changed nothing."
    )
    assert runner.events[at - 1]["type"] == "step" and runner.events[at - 1]["step"] == 2


def test_failed_rollouts_are_left_out_not_zero(train: Callable[..., Runner]) -> None:
    """An agent that raises now and then costs rows, and each status is counted."""
    runner, seen = train(), {"train": 0}

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "train":
            seen["train"] += 1
            if seen["train"] % 4 == 0:
                return [
                    call(assignment, ask_engine(assignment)),
                    end(assignment["key"], "agent_error", "ValueError: x"),
                ]
            if seen["train"] == 2:
                return [call(assignment, ask_engine(assignment)), end(assignment["key"])]  # forgot its reward
        return good(assignment)

    runner.begin({"failure.refills": 0})
    step = runner.play(agent, a_step)["metrics"]
    assert (step["rollouts_ok"], step["rollouts_agent_error"], step["rollouts_reward_error"]) == (8, 3, 1)
    assert (step["rows_seen"], step["rollouts_trained"], step["retries"]) == (8, 8, 0)


def test_rewards_add_up_by_role(train: Callable[..., Runner]) -> None:
    """Intermediate rewards and the final one of the same role are summed; roles stay apart."""
    runner = train()

    def agent(assignment: dict[str, Any]) -> list[Any]:
        key = assignment["key"]
        calls = [call(assignment, ask_engine(assignment), role=role) for role in ("writer", "checker")]
        given = [reward(key, 0.25, "writer", "step"), reward(key, 1, "writer"), reward(key, 0.5, "checker")]
        return [*calls, *given, end(key)]

    runner.begin()
    step = runner.play(agent, a_step)["metrics"]
    assert (step["reward_mean/writer"], step["reward_mean/checker"]) == (1.25, 0.5)
    assert step["groups_without_signal"] == step["groups"]
    before = next(event for event in runner.events if event["type"] == "evaluation")
    assert before["mean"] == pytest.approx((1.25 + 0.5) / 2)


def test_an_evaluation_alone(train: Callable[..., Runner]) -> None:
    """`evaluate` gives a report with the score and trains nothing; failed rollouts are left out and counted."""
    runner = train()
    runner.watcher.ask("evaluate", settings={"backend": "bandit"}, tasks=[{"best": 0}, {"best": 0}, {"best": 3}, {}])

    def agent(assignment: dict[str, Any]) -> list[Any]:
        return good(assignment) if assignment["task"] else [end(assignment["key"], "agent_error", "KeyError: 'best'")]

    report = runner.play(agent)["report"]
    score = report["held_out"]["after"]
    assert (score["mean"], score["n"], score["failed"]) == (pytest.approx(2 / 3), 3, 1)
    assert report["steps"] == 0


# --- leases


def test_what_is_not_the_agents_fault_is_tried_again(train: Callable[..., Runner]) -> None:
    """Under a new key; what then still comes under the old one is kept but does not count."""
    runner = train()
    old: list[dict[str, Any]] = []

    def agent(assignment: dict[str, Any]) -> list[Any]:
        if assignment["attempt"] == 1 and assignment["mode"] == "train":
            old.append(assignment)
            return [reward(assignment["key"], 100.0), end(assignment["key"], "infrastructure_error", "no route")]
        late = [reward(each["key"], 100.0, name="late") for each in old if each["id"] == assignment["id"]]
        late += [end(each["key"]) for each in old if each["id"] == assignment["id"]]
        return [*late, *good(assignment)]

    runner.begin()
    step = runner.play(agent, a_step)["metrics"]
    assert (step["retries"], step["rollouts_ok"]) == (12, 12)
    assert step["reward_mean"] <= 1.0
    first = [each for each in old if each["group"].startswith("1-")]
    again = {each["id"]: each for each in runner.leased if each["attempt"] == 2}
    assert len(first) == 12
    assert all(again[each["id"]]["key"] != each["key"] for each in first)
    assert runner.watcher.ask("status")["late"] >= 24


def test_a_dead_runner_loses_its_leases(train: Callable[..., Runner]) -> None:
    """What a silent runner had is handed to another one; one that renews keeps what it has."""
    runner = train(lease_seconds=6.0)
    runner.begin({"steps": 1}, held_out=[])
    with Client(runner.hub) as dead:
        taken = dead.ask("lease", runner="dead", places=5, wait=5.0)
    with Client(runner.hub) as slow:
        kept = slow.ask("lease", runner="slow", places=1, wait=5.0)
        again: dict[str, Any] = {}
        deadline = time.monotonic() + 60
        while len(again) < 5 and time.monotonic() < deadline:
            runner.send([event for each in runner.lease(16, 0.2) for event in good(each)])
            assert slow.ask("renew", runner="slow") == [kept[0]["key"]]
            again = {each["id"]: each for each in runner.leased if each["attempt"] == 2}
    runner.send(good(kept[0]))
    assert runner.play(good, a_step)["metrics"]["retries"] == 5
    assert set(again) == {each["id"] for each in taken}
    assert not {each["key"] for each in again.values()} & {each["key"] for each in taken}


def test_a_lease_is_answered_when_work_comes(train: Callable[..., Runner]) -> None:
    """A parked request gets its work at once, not at the end of its wait."""
    runner = train()
    runner.client.post("lease", runner="r", places=2, wait=30.0)
    runner.begin({"steps": 1})
    began = time.monotonic()
    [_, error, given] = runner.client.expect(b"\x07")
    assert (error, len(given)) == (None, 2)
    assert time.monotonic() - began < 15.0


def test_only_so_many_at_once(train: Callable[..., Runner]) -> None:
    """rollouts.concurrency bounds what all runners have together."""
    runner = train()
    runner.begin({"steps": 1, "rollouts.concurrency": 3}, held_out=[])
    first = runner.lease(2, 5.0)
    second = runner.lease(16, 5.0)
    assert (len(first), len(second), runner.lease(16, 0.05)) == (2, 1, [])
    for each in (*first, *second):
        runner.send(good(each))
    assert runner.play(good, a_step)["metrics"]["rollouts_ok"] == 12


# --- going on


def test_resume_goes_on_after_the_last_checkpoint(train: Callable[..., Runner]) -> None:
    """kill -9 after step 3 of 6: the run goes on after step 2, with the same tasks as if nothing had happened."""
    runner = train()
    hub = runner.hub
    runner.begin()
    runner.play(good, lambda event: event["type"] == "step" and event["step"] == 3)
    first = tasks_of_steps(runner)
    hub.kill()
    runner.close()
    hub.start()
    again = Runner(hub)
    with pytest.raises(SettingError, match=r"holds a run of 3 steps.*--resume"):
        again.begin()
    last = again.train(good, resume=True)
    assert last["type"] == "finished"
    assert next(event for event in again.events if event["type"] == "started")["step"] == 2
    assert [step["step"] for step in again.steps()] == [3, 4, 5, 6]
    assert [step["version"] for step in again.steps()] == [3, 4, 5, 6]
    assert tasks_of_steps(again)[3] == first[3]
    lines = (hub.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert last["report"]["held_out"]["before"]["mean"] == 0.0
    assert again.watcher.ask("status")["rollouts"].get("running") is None
    again.close()


def test_a_resume_that_cannot_read_its_run_changes_nothing_of_it(train: Callable[..., Runner]) -> None:
    """A checkpoint that cannot be read, or another model than the run began with: settings, metrics, scores and report
    stay as they were, and what failed is said."""
    runner = train()
    folder = runner.hub.folder
    assert runner.train(good, {"steps": 2})["type"] == "finished"
    kept = (folder / "checkpoints/step-00002/bandit.json").read_bytes()
    (folder / "checkpoints/step-00002/bandit.json").unlink()
    before = _read_files(folder)
    last = runner.train(good, {"steps": 3, "save_every": 1}, resume=True)
    assert last["type"] == "failed" and "FileNotFoundError" in last["error"][1]
    assert _read_files(folder) == before
    (folder / "checkpoints/step-00002/bandit.json").write_bytes(kept)
    config = json.loads((folder / "config.json").read_text())
    config["facts"]["parameters"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    before = _read_files(folder)
    last = runner.train(good, {"steps": 3, "save_every": 1}, resume=True)
    assert last["error"][0] == "ModelError" and "parameters is 4, and was 5" in last["error"][1]
    assert _read_files(folder) == before


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(train: Callable[..., Runner]) -> None:
    """A run that could save nothing ends before it learns anything."""
    runner = train()
    last = runner.train(good, {"model": "huge"})
    assert last["error"][0] == "DiskError"
    assert re.search(r"GB free, but a checkpoint of this model takes about [\d.]+ GB\. .*--runs$", last["error"][1])
    assert not runner.steps()


def test_a_disk_without_room_for_all_checkpoints_is_warned_of(train: Callable[..., Runner]) -> None:
    """There is room for one of three, and there may be more when the others are written."""
    runner = train()
    assert runner.train(good, {"model": "large"})["type"] == "finished"
    (told,) = [event["text"] for event in runner.events if event["type"] == "warning" and "GB free" in event["text"]]
    assert re.search(r"but the 3 checkpoints of this run take about [\d.]+ GB\. .*a larger save_every", told)


def _read_files(folder: Path) -> dict[Path, bytes]:
    """What a run has written down of itself, but for logs and the store."""
    return {path: path.read_bytes() for path in folder.rglob("*.*") if path.suffix in {".json", ".jsonl", ".md"}}


def test_what_changes_on_going_on_is_written_down(train: Callable[..., Runner]) -> None:
    """After which step, from what to what; and the tasks: those held out, and the ids of the others."""
    runner = train()
    runner.train(good, {"steps": 2}, rewards={"right": 0.5})
    last = runner.train(good, {"steps": 3, "optimizer.learning_rate": 2.0}, resume=True, tasks=TASKS[3:])
    config = json.loads((runner.hub.folder / "config.json").read_text())
    changed = {"steps": [2, 3], "optimizer.learning_rate": [None, 2.0]}
    assert config["resumed"] == [{"after_step": 2, "changed": changed}] == last["report"]["resumed"]
    assert (config["kind"], config["settings"]["optimizer"]["learning_rate"]) == ("training", 2.0)
    tasks = json.loads((runner.hub.folder / "tasks.json").read_text())
    assert tasks == {"held_out": TASKS[:2], "training": [task_id(task) for task in TASKS[3:]]}


def tasks_of_steps(runner: Runner) -> dict[int, list[int]]:
    """Step -> the tasks of its groups."""
    found: dict[int, list[int]] = {}
    for each in runner.leased:
        if each["mode"] == "train":
            step, place = (int(part) for part in each["group"].split("-"))
            tasks = found.setdefault(step, [])
            if place == len(tasks):
                tasks.append(TASKS.index(each["task"]))
    return found


def test_every_task_comes_once_an_epoch(train: Callable[..., Runner]) -> None:
    """Five steps of three tasks see each of five tasks three times, in an order that the seed decides."""
    runner = train()
    runner.begin({"steps": 100, "save_every": 100}, held_out=[])
    runner.play(good, lambda event: event["type"] == "step" and event["step"] == 5)
    seen = [task for _, tasks in sorted(tasks_of_steps(runner).items()) for task in tasks][:15]
    assert [sorted(seen[at : at + 5]) for at in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert seen[:5] != seen[5:10] or seen[5:10] != seen[10:]


def test_a_stopped_run_is_saved(train: Callable[..., Runner]) -> None:
    """When the parent goes, the backend is closed and what was learned is kept for --resume."""
    runner = train()
    hub = runner.hub
    runner.begin({"steps": 1000, "save_every": 1000})
    runner.play(good, lambda event: event["type"] == "step" and event["step"] == 3)
    assert hub.stop() == 0
    report = json.loads((hub.folder / "report.json").read_text())
    assert report["status"] == "stopped"
    assert report["checkpoint"] == f"checkpoints/step-{report['steps']:05d}"
    assert (hub.folder / report["checkpoint"] / "bandit.json").exists()
    assert (hub.folder / "backend-closed").exists()


def test_one_training_at_a_time(train: Callable[..., Runner]) -> None:
    """A hub that trains refuses another training."""
    runner = train()
    runner.begin()
    with pytest.raises(HubError, match="already training"):
        runner.begin()


def test_observed_rollouts_go_on_during_a_training(train: Callable[..., Runner]) -> None:
    """Agents that only observe may stream to a hub that trains; they count for nothing there."""
    runner = train()
    with Client(runner.hub) as other:
        other.deliver(1, [begin(b"o" * 16, "observed"), reward(b"o" * 16, 50.0), end(b"o" * 16)])
        runner.begin()
        assert runner.play(good, a_step)["metrics"]["reward_mean"] <= 1.0
        assert runner.watcher.ask("status")["rollouts"]["ok"] >= 1 + 2 + 12
