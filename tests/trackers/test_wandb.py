"""W&B offline: its transaction logs, read with W&B's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb

import lightning_sdk as lightning
from tests.trackers.conftest import TrackedTraining, reward

_NO_SERVER = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def records(training: TrackedTraining) -> list[dict[str, Any]]:
    """Those of both sessions, in the order in which they were written."""
    found: list[dict[str, Any]] = []
    for log in sorted((training.place / "wandb").glob("offline-run-*/*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return found


@contextmanager
def reset_wandb() -> Iterator[None]:
    """W&B reads the environment once; within, it reads it again."""
    wandb.teardown()
    try:
        yield
    finally:
        wandb.teardown()


def read(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each[kind] for each in records if each["type"] == kind]


def test_every_number_is_that_of_the_run(training: TrackedTraining, records: list[dict[str, Any]]) -> None:
    """Each metric of each step and each score, also after going on; and nothing else."""
    found: dict[str, dict[int, float]] = {}
    for each in read(records, "history"):
        for name, value in each["item"].items():
            if not name.startswith(("_", "held_out/samples")) and name != "step":
                found.setdefault(name, {})[each["item"]["step"]] = value
    assert found == training.numbers()


def test_a_resumed_run_is_the_same_one(training: TrackedTraining, records: list[dict[str, Any]]) -> None:
    """Both sessions have one id, in the project that the environment names."""
    runs = read(records, "run")
    assert {(each["run_id"], each["project"], each["display_name"]) for each in runs} == {
        (training.place_of("wandb")["id"], "tests", "bandit")
    }
    assert len(runs) >= 2


def test_settings_and_verdict_are_there(training: TrackedTraining, records: list[dict[str, Any]]) -> None:
    """Settings as config, what came out as summary; no file of the run was sent."""
    config = read(records, "run")[0]["config"]["update"]
    assert (config["rollouts.group_size"], config["backend"], config["facts.parameters"]) == (4, "bandit", 4)
    summary = {name: value for each in read(records, "summary") for name, value in each["update"].items()}
    after = training.report.after
    assert after is not None
    assert (summary["verdict"], summary["held_out/after/mean"]) == (training.report.verdict, after.mean)
    files = {file["path"] for each in read(records, "files") for file in each["files"]}
    assert {path for path in files if not path.startswith("media/table/")} == {"requirements.txt"}


def test_samples_are_a_table(training: TrackedTraining) -> None:
    """Of each evaluation, with task, answer and reward."""
    tables = [
        json.loads(path.read_text()) for path in training.place.glob("wandb/offline-run-*/files/media/table/**/*.json")
    ]
    assert len(tables) == 3  # before, after two steps, and after the third
    for table in tables:
        assert table["columns"] == ["task", "answer", "reward", "why"]
        assert all(reward({}, answer) == value for _, answer, value, _ in table["data"]) and table["data"]


def test_without_a_key_nothing_is_started(
    alone: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online without a key: an error that says what to do, before there is a folder."""
    monkeypatch.delenv("WANDB_MODE")
    with reset_wandb(), pytest.raises(lightning.SettingError, match=r"wandb login.*WANDB_MODE=offline"):
        alone(log_to="wandb")
    assert not (tmp_path / "runs").exists()


def test_a_server_that_cannot_be_reached_stops_no_training(
    alone: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, and the training does all its steps."""
    for name, value in (
        ("WANDB_MODE", "online"),
        ("WANDB_API_KEY", "0" * 40),
        ("WANDB_BASE_URL", _NO_SERVER),
        ("WANDB_INIT_TIMEOUT", "3"),
    ):
        monkeypatch.setenv(name, value)
    with reset_wandb():
        report = alone(log_to="wandb")
    assert report.steps == 1
    assert capsys.readouterr().err.count("this run is not logged to wandb") == 1
