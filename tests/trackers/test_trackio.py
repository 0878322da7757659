"""Trackio on this machine, read with Trackio's own reader, in a process that finds its folder as it would anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.conftest import TrackedTraining, reward

_READ = """
import json
from trackio.sqlite_storage import SQLiteStorage

(run,) = SQLiteStorage.get_run_records("agents")
found = {"run": run, "logs": SQLiteStorage.get_logs("agents", run_id=run["id"])}
found["config"] = SQLiteStorage.get_run_config("agents", run_id=run["id"])
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def project(training: TrackedTraining) -> dict[str, Any]:
    """The only run of the project: a training that goes on is logged to the run that it began."""
    environment = {**os.environ, "TRACKIO_DIR": str(training.place / "trackio")}
    done = subprocess.run([sys.executable, "-c", _READ], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_number_is_that_of_the_run(training: TrackedTraining, project: dict[str, Any]) -> None:
    """Each metric of each step and each score, also after going on; and nothing else but the summary."""
    found: dict[str, dict[int, float]] = {}
    for line in project["logs"]:
        for name, value in line.items():
            if name not in {"step", "timestamp", "summary", "held_out/samples"}:
                found.setdefault(name, {})[line["step"]] = value
    assert found == training.numbers()
    assert project["run"]["name"] == "bandit"


def test_samples_are_tables(project: dict[str, Any]) -> None:
    """One of each evaluation, with task, answer and reward."""
    tables = {
        line["step"]: line["held_out/samples"]["_value"] for line in project["logs"] if "held_out/samples" in line
    }
    assert tables.keys() == {0, 2, 3} and all(tables.values())
    assert all(reward({}, each["answer"]) == each["reward"] for table in tables.values() for each in table)


def test_settings_and_verdict_are_there(training: TrackedTraining, project: dict[str, Any]) -> None:
    """Settings as config, and what came out as a report in Markdown."""
    config = project["config"]
    assert (config["rollouts.group_size"], config["backend"], config["facts.parameters"]) == (4, "bandit", 4)
    summaries = [line["summary"]["_value"] for line in project["logs"] if "summary" in line]
    assert f"| verdict | {training.report.verdict} |" in summaries[-1]
    assert Path(training.place / "trackio").is_dir()
