"""The README's code, run as a reader would run it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_sdk.stream import sink
from lightning_sdk.stream.wire import Event
from tests.docs.pages import ROOT, block, marked_blocks
from tests.sdk.recorder import Recorder


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's two files were run as they stand, with fewer steps."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "tasks.py").write_text(block("README.md", "python", "random.Random("))
    code = block("README.md", "python", "lightning.train(")
    short = code.replace("steps=40", "steps=24, **{'evaluation.tasks': 8}")
    assert short != code
    (folder / "agent.py").write_text(short)
    (folder / "tasks.jsonl").write_text(run(folder, "tasks.py"))
    run(folder, "agent.py")
    return folder


def run(folder: Path, script: str) -> str:
    """What a program of the reader prints."""
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_first_block_learns(trained_folder: Path) -> None:
    """What a reader copies first rises within a few steps, by more than its noise; and both ends are scored."""
    report = json.loads((trained_folder / "runs" / "solve" / "report.json").read_text())
    assert (report["status"], report["steps"], report["calls"]) == ("finished", 24, 24 * 16 * 8)
    assert {"before", "after"} <= set(report["held_out"])
    lines = (trained_folder / "runs" / "solve" / "metrics.jsonl").read_text().splitlines()
    rewards = [json.loads(line)["reward_mean"] for line in lines]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05


def test_the_readme_is_a_screen_and_a_short_tour() -> None:
    """Everything else has a page in docs/."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_the_first_screen_types_what_the_tests_run() -> None:
    """The commands beneath the first block name the files that the blocks are saved as."""
    typed = block("README.md", "console", "agent.py\n")
    assert typed == "$ .venv/bin/python tasks.py > tasks.jsonl\n$ .venv/bin/python agent.py\n"


@pytest.mark.timeout(300)
def test_the_commands_of_the_start_page_run(trained_folder: Path) -> None:
    """Each is typed as it stands in docs/start.md; its tasks and its training are those of the fixture."""
    here = [each for each in marked_blocks("docs/start.md") if each.mark == "run by tests/docs/test_readme.py"]
    typed = [line.removeprefix("$ ") for each in here for line in each.text.splitlines()]
    assert typed[0] == "python tasks.py > tasks.jsonl" and typed.count("python agent.py") == 1
    shown = ""
    for line in typed[1:]:
        if line != "python agent.py":
            program, *arguments = shlex.split(line)
            assert program == "lightning-sdk"
            command = [sys.executable, "-m", "lightning_sdk.cli", *arguments]
            done = subprocess.run(command, cwd=trained_folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            shown += done.stdout + done.stderr
    assert block("docs/start.md", "text", "Ready to train") in shown


@pytest.mark.timeout(300)
def test_the_run_folder_is_as_described(trained_folder: Path) -> None:
    """Every file of a run has a line in the page's table, and every line a file."""
    page = (ROOT / "docs" / "run-folder.md").read_text("utf-8")
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    told = {name.split("/")[0] for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    found = {path.name for path in (trained_folder / "runs" / "solve").iterdir()}
    assert found - {"hub.lock", "hub.sqlite-wal", "hub.sqlite-shm"} == told


def test_the_block_with_a_rollout_runs() -> None:
    """A hand-written loop begins a rollout, scores it, and ends it."""
    recorder = Recorder()
    sink.connect(recorder)
    exec(compile(block("docs/serving.md", "python", "lightning.rollout("), "serving.md", "exec"), {})
    assert [event[0] for event in recorder.events] == [Event.BEGIN, Event.REWARD, Event.END]
    assert recorder.of(Event.REWARD)[0][2] == 1.0
    assert recorder.of(Event.END)[0][5] == "42"
