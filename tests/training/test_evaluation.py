"""Evaluation as a whole, with the real client, seam, hub and engine: seeds, scores by task and role, the verdict."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.rollouts.archive import Archive
from lightning_sdk import markers
from tests.training import agents
from tests.training.agents import TASKS

SAMPLED: dict[str, Any] = {
    "evaluation.seeds": 2,
    "evaluation.temperature": 1.0,
    "sampling.max_tokens": 8,
    "rollouts.concurrency": 8,
    "quiet": True,
}


@pytest.fixture(autouse=True)
def roles() -> None:
    """The roles of these agents, which other tests forget."""
    markers.agent.declared.update(solver=True, writer=True, checker=True)


@lightning.agent(role="solver", trainable=True)
def twice(task: dict[str, Any]) -> str:
    """Asks the same question two times."""
    return "\n".join(agents.ask(task["question"]) for _ in range(2))


def team(task: dict[str, Any]) -> str:
    """A writer, and a checker who reads what it wrote."""
    written = lightning.agent(role="writer", trainable=True)(agents.ask)(task["question"])
    return written + lightning.agent(role="checker", trainable=True)(agents.ask)(f"Is it right? {written}")


def digest(task: dict[str, Any], answer: str) -> float:
    """Tells any two answers apart."""
    return zlib.crc32(answer.encode()) / 2**32


def by_role(task: dict[str, Any], answer: str) -> dict[str, float]:
    return {"writer": float(len(answer) % 5), "checker": float(len(answer) % 3)}


def evaluations(run: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    return {line["name"]: line for line in lines}


def test_the_same_seeds_give_the_same_replies(tmp_path: Path) -> None:
    """Twice the same to the last letter, whatever else is in the engine's batch; each seed and each call its own."""
    first = lightning.evaluate(twice, TASKS[:4], digest, runs=tmp_path, name="first", **SAMPLED)
    again = lightning.evaluate(
        twice, TASKS[:4], digest, runs=tmp_path, name="again", **{**SAMPLED, "rollouts.concurrency": 1}
    )
    scores = [evaluations(each.folder)["after"]["by_seed"] for each in (first, again)]
    assert scores[0] == scores[1]
    assert all(one != two for one, two in scores[0].values())
    assert first.after is not None and first.after.seeds == 2 and str(first.after).endswith("n=4 x 2 seeds")
    with Archive(first.folder) as archive:
        calls = [call for each in archive.rollouts(archive.entries("evaluate")) for call in each.calls]
    sent = [json.loads(call.request) for call in calls]
    assert len({each["seed"] for each in sent}) == len(sent) == 16 and {each["temperature"] for each in sent} == {1.0}


def test_a_training_is_measured_on_the_same_draws_before_and_after(tmp_path: Path) -> None:
    """Three steps, scores by seed and by role, the paired change, and a verdict in every place that people look."""
    report = lightning.train(
        team,
        TASKS,
        by_role,
        held_out=TASKS[:8],
        steps=3,
        runs=tmp_path,
        name="run",
        **{**SAMPLED, "rollouts.tasks_per_step": 2, "rollouts.group_size": 4},
    )
    found = evaluations(tmp_path / "run")
    for line in (found["before"], found["after"]):
        assert (line["n"], line["seeds"], line["temperature"], line["failed"]) == (8, 2, 1.0, 0)
        assert all(len(values) == 2 for values in line["by_seed"].values())
        assert list(line["roles"]) == ["checker", "writer"]
        means = {task: sum(values) / 2 for task, values in line["by_seed"].items()}
        assert means == pytest.approx(line["scores"])
    with Archive(tmp_path / "run") as archive:
        rollouts = list(archive.rollouts(archive.entries("evaluate")))
        trained = [call for each in archive.rollouts(archive.entries("train")) for call in each.calls]
    drawn = {
        when: sorted(
            (each.task_id, call.meta.role, json.loads(call.request)["seed"])
            for each in rollouts
            for call in each.calls
            if each.group.startswith(when)
        )
        for when in ("before", "after")
    }
    assert drawn["before"] == drawn["after"] and len(set(drawn["before"])) == 32
    assert trained and not any("seed" in json.loads(call.request) for call in trained)
    values, page = report.values, (tmp_path / "run" / "report.md").read_text()
    assert report.verdict in {"better", "worse", "not shown to be better"} and report.verdict == values["verdict"]
    assert report.change is not None and report.change.n == 8 and f"verdict   {report.verdict}" in str(report)
    assert list(values["roles"]) == ["writer", "checker"] and "## Roles in step 3" in page
    assert values["roles"]["writer"]["entropy"] > 0 and "| 8 x 2 seeds | 0 |" in page
    assert report.roles("after")["checker"].n == 8
    assert found["after"]["look"] == {"number": 1, "share": 0.9} and found["after"]["planned_step"] == 3
    assert found["before"]["trained"] is None and found["after"]["trained"]["count"] == 24


def test_the_command_says_the_verdict(tmp_path: Path) -> None:
    """On standard output, with the change by task above it; nothing was learned in one step of a constant reward."""
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in TASKS))
    (tmp_path / "agent.py").write_text(Path(agents.__file__).read_text())
    chosen = [
        "rollouts.tasks_per_step=2",
        "rollouts.group_size=2",
        "sampling.max_tokens=6",
        "evaluation.seeds=2",
        "evaluation.temperature=1.0",
    ]
    command = [
        sys.executable,
        "-m",
        "lightning_sdk.cli",
        "train",
        "agent.py:solve",
        "--tasks",
        "tasks.jsonl",
        "--reward",
        "agent.py:length",
        "--steps",
        "1",
        *(f"--set={each}" for each in chosen),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, timeout=110)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (verdict,) = [line for line in lines if line.startswith("verdict   ")]
    assert verdict.startswith("verdict   not shown to be better: ") and lines[3].startswith("change    ")
    assert all(line.split(maxsplit=1)[0] in {"fatal", "warning"} for line in lines[lines.index(verdict) + 1 :])
    assert "not shown to be better: 1 step in" in done.stderr
    assert "n=2 x 2 seeds" in done.stdout


def test_seeds_without_a_temperature_are_refused(tmp_path: Path) -> None:
    """Greedy rollouts are all alike."""
    with pytest.raises(lightning.SettingError, match=r"evaluation\.seeds=3.*set evaluation\.temperature"):
        lightning.evaluate(twice, TASKS, digest, runs=tmp_path, quiet=True, **{"evaluation.seeds": 3})
