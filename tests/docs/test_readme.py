"""The README's code, run as a reader would run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, block
from recorder import Recorder

from lightning_sdk import sink
from lightning_sdk.wire import Event

#: The same run, but small: what the reader waits minutes for takes seconds.
SMALL = {
    "rollouts.tasks_per_step": 2, "rollouts.group_size": 2, "evaluation.tasks": 2, "sampling.max_tokens": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's agent.py was run as it stands, with fewer steps and fewer rollouts."""
    folder = tmp_path_factory.mktemp("reader")
    code = block("README.md", "python", "lightning.train(")
    small = code.replace("steps=40", f"steps=1, **{SMALL}")
    assert small != code
    (folder / "agent.py").write_text(small)
    task = json.loads(block("README.md", "json", "question"))
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for _ in range(10)))
    done = subprocess.run([sys.executable, "agent.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.timeout(300)
def test_the_first_block_trains(trained: Path) -> None:
    """The ten lines of the first screen make a run: one step, trainable calls, a score before and after."""
    report = json.loads((trained / "runs" / "solve" / "report.json").read_text())
    assert report["status"] == "finished"
    assert report["steps"] == 1
    assert report["calls"] == 4
    assert {"before", "after"} <= set(report["held_out"])


@pytest.mark.timeout(300)
def test_the_run_folder_is_as_described(trained: Path) -> None:
    """Every file of a run has a line in the README's table, and every line a file."""
    section = (ROOT / "README.md").read_text("utf-8").partition("## The run folder")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = {name.split("/")[0] for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    found = {path.name for path in (trained / "runs" / "solve").iterdir()}
    assert found - {"hub.lock", "hub.sqlite-wal", "hub.sqlite-shm"} == told


def test_the_block_with_a_rollout_runs() -> None:
    """A hand-written loop begins a rollout, scores it, and ends it."""
    recorder = Recorder()
    sink.connect(recorder)
    exec(compile(block("README.md", "python", "lightning.rollout("), "README.md", "exec"), {})
    assert [event[0] for event in recorder.events] == [Event.BEGIN, Event.REWARD, Event.END]
    assert recorder.of(Event.REWARD)[0][2] == 1.0
    assert recorder.of(Event.END)[0][5] == "42"
