"""A training of an agent that tries everything that it is not given: the real command line, hub, engine and runners."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.agents import TASKS
from tests.training.small_run import SMALL_RUN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the agent was trained for a step, with further runner processes and a key in the environment."""
    folder = tmp_path_factory.mktemp("greedy")
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    (folder / "agent.py").write_text(Path(__file__).with_name("greedy_agent.py").read_text())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "lightning_sdk.cli",
            "train",
            "agent.py:solve",
            "--tasks",
            "tasks.jsonl",
            "--steps",
            "1",
            "--runners",
            "2",
            "--listen",
            "tcp://127.0.0.1:0",
            "--name",
            "run",
            *SMALL_RUN,
        ],
        cwd=folder,
        env={**os.environ, "LIGHTNING_KEY": "a secret of people"},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return folder


def got(folder: Path, attempt: str) -> list[list[object]]:
    lines = map(json.loads, (folder / "told.jsonl").read_text().splitlines())
    found = [line["got"] for line in lines if line["attempt"] == attempt]
    assert len(found) >= 4
    return found


def test_it_cannot_train(folder: Path) -> None:
    """No update, no file and no other model came of it, at any port of this machine."""
    assert not {200, 400, 500} & {status for each in got(folder, "learner") for status in each}
    assert list((folder / "taken").iterdir()) == []
    report = json.loads((folder / "runs" / "run" / "report.json").read_text())
    assert report["status"] == "finished" and report["steps"] == 1


def test_it_cannot_ask_in_anothers_name(folder: Path) -> None:
    """Its key opens only its own rollout."""
    assert {status for each in got(folder, "other rollout") for status in each} == {401}


def test_its_tools_find_no_key(folder: Path) -> None:
    """Neither in the environment nor on a command line, although the user gave one in the environment."""
    assert got(folder, "tool") == [[]] * len(got(folder, "tool"))


def test_it_cannot_lead_the_hub(folder: Path) -> None:
    """The key of the runner that it runs in opens what runners need."""
    assert {answer for each in got(folder, "hub") for answer in each} == {"refused"}


def test_it_cannot_use_the_account_that_pays(folder: Path) -> None:
    """The gateway asks models for it, and nothing else."""
    assert {status for each in got(folder, "gateway") for status in each} == {403}
