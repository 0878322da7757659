"""Weights and prompts in one run: the real client, hub, engine and learner, with `spark`.

The reflecting model is a double that proposes texts by the length of its question. The reward is a checksum of the
answer, so gains are chance; these tests are about what is done with them.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.rollouts.archive import Archive
from lightning_hub.training.arbiter import Kind, Phase, choose
from lightning_sdk.errors import SettingError, TaskError
from lightning_sdk.rollouts.tasks import task_id
from tests.prompts import adding_agent
from tests.prompts.adding_agent import INSTRUCTION, TASKS
from tests.prompts.adding_runs import (
    PHASED,
    RUINOUS,
    assert_restored,
    count_replies,
    finish,
    is_undone,
    kill_when,
    lines,
    prepare,
    start,
)
from tests.prompts.model_servers import ModelServer

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("declare_solver")]


def train(folder: Path, tasks: Any = TASKS, **settings: Any) -> lightning.Report:
    lightning.init()
    given = {"tune": "prompts", "steps": 8, "quiet": True, **PHASED, **settings}
    return lightning.train(adding_agent.solve, tasks, adding_agent.checksum, name="run", runs=folder, **given)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def without_time(phases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "seconds": 0} for each in phases]


def test_phases_take_turns_as_their_gains_say(tmp_path: Path, proposer: ModelServer) -> None:
    """Every choice is the arbiter's of the phases before it; updates are made with the texts in force; the tasks that
    phases are compared on, and the held-out ones, are used for nothing else."""
    report = train(tmp_path, **{"prompts.reflect_with": proposer.url})
    run = tmp_path / "run"
    phases = [Phase(**{**each, "kind": Kind(each["kind"])}) for each in report.values["phases"]]
    for number, each in enumerate(phases):
        assert (each.kind, each.why) == choose(phases[:number], "rollouts")
    assert {each.kind for each in phases[:2]} == set(Kind)
    assert [each.first_step for each in phases] == [1, *(each.last_step + 1 for each in phases[:-1])]
    assert phases[-1].last_step == report.steps == 8
    for before, after in pairwise(phases):
        assert before.after == after.before
    assert sum(each.rollouts for each in phases) == report.values["rollouts"]

    kinds = {step: each.kind for each in phases for step in range(each.first_step, each.last_step + 1)}
    updates = [step for step, kind in kinds.items() if kind is Kind.WEIGHTS]
    metrics = lines(run / "metrics.jsonl")
    assert [line["step"] for line in metrics if "loss" in line] == updates
    texts = {each["id"]: each["texts"]["solver"] for each in lines(run / "candidates.jsonl")}
    deciding, used, in_force = set[int](), set[int](), dict[int, set[str]]()
    with Archive(run) as kept:
        for rollout in kept.rollouts([*kept.entries("train"), *kept.entries("evaluate")]):
            (call,) = rollout.calls
            told = texts[call.meta.candidate] if call.meta.candidate else INSTRUCTION
            assert json.loads(call.request)["messages"][0]["content"] == told
            if rollout.mode == "evaluate":
                deciding |= {rollout.task_id} if rollout.group.startswith("phase-") else set()
                continue
            used.add(rollout.task_id)
            step = rollout.group.partition("-")[0]
            if step.isdecimal() and int(step) in updates:
                in_force.setdefault(int(step), set()).add(call.meta.candidate)
    held_out = {task_id(each) for each in read_json(run / "tasks.json")["held_out"]}
    assert deciding and not deciding & used and not held_out & (deciding | used)
    assert report.values["facts"]["deciding_tasks"] == len(deciding)
    assert set(in_force) == set(updates) and all(len(each) == 1 for each in in_force.values())

    assert (run / "checkpoints/step-00008").is_dir() and report.texts == report.values["search"]["texts"]
    page = (run / "report.md").read_text()
    assert "improved in turns: 8 steps in" in page and "## The phases" in page and "## The search" in page
    assert f"8 steps of {len(phases)} phases" in str(report)
    with pytest.raises(SettingError, match="has already done 8 steps"):
        train(tmp_path, resume="run")


def test_a_run_that_was_killed_twice_ends_as_if_it_had_not_been(tmp_path: Path, proposer: ModelServer) -> None:
    """kill -9 in a phase of prompts, and again in a phase of weights: the same phases, gains, candidates and scores."""
    folders = [prepare(tmp_path / name) for name in ("whole", "parts")]
    options = ("--tune", "prompts", "--steps", "6", "--reflect-with", proposer.url)
    finish(start(folders[0], "checksum", PHASED, *options))
    run = folders[1] / "runs/run"

    def is_searching() -> bool:
        return count_replies(run / "phases/001/search.jsonl") > 1  # the first one is the check's

    def is_training() -> bool:
        return any("loss" in line for line in lines(run / "metrics.jsonl"))

    proposer.seconds = 0.1
    kill_when(start(folders[1], "checksum", PHASED, *options), is_searching)
    proposer.seconds = 0.0
    kill_when(start(folders[1], "checksum", {}, "--resume", "run"), is_training)
    told = finish(start(folders[1], "checksum", {}, "--resume", "run"))
    assert "phase 2 (weights) gained" in told and "phase 1 (prompts) gained" not in told
    one, other = (read_json(folder / "runs/run/report.json") for folder in folders)

    assert without_time(one["phases"]) == without_time(other["phases"])
    assert lines(folders[0] / "runs/run/candidates.jsonl") == lines(run / "candidates.jsonl")
    assert one["search"]["texts"] == other["search"]["texts"] and one["rollouts"] == other["rollouts"]
    for name in ("before", "after"):
        assert one["held_out"][name]["mean"] == other["held_out"][name]["mean"]


def test_a_phase_that_ruins_the_model_is_undone(tmp_path: Path) -> None:
    """Weights and texts are those of the beginning again, also for a run that was killed just then, and so is the
    held-out score."""
    folders = [prepare(tmp_path / name) for name in ("whole", "parts")]
    run = folders[1] / "runs/run"
    with ModelServer(lambda _: "I have no idea.") as reflector:
        options = ("--tune", "prompts", "--steps", "6", "--reflect-with", reflector.url)
        told = finish(start(folders[0], "in_form", RUINOUS, *options))
        kill_when(start(folders[1], "in_form", RUINOUS, *options), lambda: is_undone(run))
        finish(start(folders[1], "in_form", {}, "--resume", "run"))
    assert "weights and prompts are those after phase 1 again" in told
    one, other = (assert_restored(folder / "runs/run") for folder in folders)
    assert without_time(one["phases"]) == without_time(other["phases"])


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"rollouts.staleness": 1}, SettingError, "no rollout can begin before the phase before it is over"),
        ({"backend": "prompts", "model": "spark"}, SettingError, "backend 'prompts' does not honour tune='prompts'"),
        ({"tasks": TASKS[:3], "evaluation.split": 0.3}, TaskError, "at least 3 different training tasks"),
        ({"tune": "weights"}, SettingError, r"does not honour phases\.steps=2, prompts\.algorithm='apo'"),
        ({"prompts.reflect_with": ""}, SettingError, "--reflect-with gpt-5"),
    ],
)
def test_what_does_not_go_together_is_refused(
    settings: dict[str, Any], error: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=told):
        train(tmp_path, **{"prompts.reflect_with": "http://127.0.0.1:9/v1#none", **settings})
