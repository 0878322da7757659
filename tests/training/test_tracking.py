"""Logging to trackers: what they are told, and that none of them can stop or slow a training.

The real ones are in `tests/trackers`; here is a third party's, which needs no package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import cli, markers
from lightning_sdk.commands import resume_hints
from lightning_sdk.commands.report import Report
from lightning_sdk.results.run_files import STEPS, read_lines
from lightning_sdk.tracking import tracking
from tests.hub import bandit_backend
from tests.training import agents, note_tracker
from tests.training.agents import SMALL, TASKS
from tests.waiting import wait_for

Train = Callable[..., Report]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains the bandit for two steps in a working folder of the test's own."""
    bandit_backend.install(tmp_path / "backend")
    note_tracker.install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "backend"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    markers.agent.declared.update(solver=True, broken=True)  # which other tests forget

    def train(agent: Callable[..., Any] = agents.solve, **more: Any) -> Report:
        settings = {"backend": "bandit", "steps": 2, "failure.flat_steps": 0, **SMALL, **more}
        return lightning.train(agent, TASKS, agents.length, name="run", **settings)

    return train


def notes(what: str = "") -> list[dict[str, Any]]:
    """What the tracker was told, or the part of this kind."""
    path = Path("notes.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [each for each in found if what in {"", each["what"]}]


def test_a_tracker_is_told_what_the_run_writes(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings, each step's metrics, the scores and what came out, in order; and where to look, for the user."""
    report = train(log_to=["notes"], quiet=False)
    assert [each["what"] for each in notes()] == ["start", "evaluation", "step", "step", "evaluation", "finish"]
    (started,), (finished,) = notes("start"), notes("finish")
    assert (started["name"], started["step"], started["earlier"]) == ("run", 0, "")
    assert started["config"]["rollouts.group_size"] == 2 and started["config"]["facts.parameters"] == 4
    for told, line in zip(notes("step"), read_lines(report.folder / STEPS).whole, strict=True):
        assert told["step"] == line["step"]
        assert told["scalars"] == {
            f"train/{name}": value for name, value in line.items() if name != "step" and value is not None
        }
    assert report.before is not None and report.after is not None
    assert [each["scalars"]["held_out/mean"] for each in notes("evaluation")] == [report.before.mean, report.after.mean]
    samples = notes("evaluation")[0]["samples"]
    assert {json.loads(each["task"])["question"] for each in samples} <= {task["question"] for task in TASKS}
    assert len(samples) == 2 and all(each["reward"] == agents.length({}, each["answer"]) for each in samples)
    assert finished["status"] == "finished"
    assert finished["summary"]["verdict"] == report.verdict
    assert finished["summary"]["held_out/after/mean"] == report.after.mean
    assert "logging to notes: cat notes.jsonl" in capsys.readouterr().err


def test_a_resumed_run_goes_on_with_the_same_one(train: Train) -> None:
    """With `log_to` the tracker gets the id that it gave, unless in another project; without, it is told nothing."""
    train(log_to="notes", steps=1)
    for steps, log_to in ((2, ()), (3, ["notes"]), (4, "notes:two")):
        lightning.train(agents.solve, TASKS, agents.length, resume="run", steps=steps, quiet=True, log_to=log_to)
    assert [(each["earlier"], each["step"]) for each in notes("start")] == [("", 0), ("note-1", 2), ("", 3)]
    assert [each["step"] for each in notes("step")] == [1, 3, 4]
    assert Path("runs/run/trackers.json").stat().st_mode & 0o777 == 0o600
    hint = resume_hints.after_stop(Path("runs/run"))
    assert "--resume runs/run --log-to notes:two (resume='runs/run', log_to=['notes:two'])" in hint


@pytest.mark.parametrize(
    ("project", "told", "left"),
    [
        ("closed", "this run is not logged to notes: ConnectionError: nobody there; all of it is in", []),
        (
            "forgetful",
            "not everything is logged to notes: ValueError: no room for step 1; what is missing is in",
            ["start", "evaluation", "evaluation", "finish"],
        ),
    ],
)
def test_a_tracker_that_fails_is_told_of_once(
    train: Train, capsys: pytest.CaptureFixture[str], project: str, told: str, left: list[str]
) -> None:
    """The training does all its steps, one warning says why and where the numbers are, and the rest is delivered."""
    assert train(log_to=f"notes:{project}").steps == 2
    said = capsys.readouterr().err
    assert said.count(" to notes: ") == 1 and told in said
    assert [each["what"] for each in notes()] == left


def test_a_tracker_that_hangs_slows_nothing(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ends while the tracker is still at its first step, and says so."""
    monkeypatch.setattr(tracking, "_FINISH_SECONDS", 0.1)
    assert train(log_to="notes:patient").steps == 2
    assert not notes("step")
    assert "notes has not finished within" in capsys.readouterr().err
    Path("go").touch()
    wait_for(lambda: notes("finish"), notes)


def test_a_run_that_fails_is_told_as_failed(train: Train) -> None:
    """A tracker hears how it ended, and why."""
    with pytest.raises(lightning.RolloutsFailed):
        train(agents.broken, log_to="notes")
    (finished,) = notes("finish")
    assert finished["status"] == "failed" and finished["summary"]["error"].startswith("RolloutsFailed: ")


@pytest.mark.parametrize(
    ("log_to", "told"),
    [
        ("wanbd", r"log_to='wanbd': no tracker has this name; installed: lonely, mlflow, notes, tensorboard, trackio"),
        ("notes,wandb", r"name each one separately: --log-to A --log-to B"),
        (["notes", "notes:two"], r"log_to: 'notes' was given twice"),
        ("lonely", r"needs package_that_nobody_has, .*pip install 'package_that_nobody_has'"),
        ("wandb", r"log_to='wandb' needs wandb, .*pip install 'lightning-agent-sdk\[wandb\]'"),
    ],
)
def test_what_cannot_log_is_refused_before_the_start(train: Train, log_to: str | list[str], told: str) -> None:
    """An unknown name, one that was given twice, or a missing package: nothing has been started."""
    with pytest.raises(lightning.SettingError, match=told):
        train(log_to=log_to)
    assert not Path("runs").exists()


def test_evaluations_are_logged_too(train: Train) -> None:
    """`lightning-sdk evaluate --log-to`, as a user types it."""
    Path("tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in TASKS[:4]))
    agent = f"{agents.__file__}:solve"
    options = ["--tasks", "tasks.jsonl", "--backend", "bandit", "--quiet", "--log-to", "notes:scores"]
    assert cli.main(["evaluate", agent, "--reward", f"{agents.__file__}:length", *options]) == 0
    assert [each["what"] for each in notes()] == ["start", "evaluation", "finish"]
