"""`lightning-sdk check RUN` on real runs: spark on this machine's CPU, trained well and in wrong ways.

Where no answer of a model matters, the numpy backend of the hub's tests serves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.errors import SettingError
from tests.hub import bandit_backend

pytestmark = pytest.mark.timeout(300)  # the first test waits for all runs

HERE = Path(__file__).parent
CALCULATOR = HERE.parents[1] / "examples" / "calculator" / "agent.py"
SIZE = {"rollouts.tasks_per_step": 4, "rollouts.group_size": 4, "rollouts.concurrency": 16, "evaluation.tasks": 12}
WILD = {
    "optimizer.learning_rate": 1e-9,
    "sampling.temperature": 2.0,
    "sampling.max_tokens": 24,
    "rollouts.group_size": 8,
}
#: Name -> agent, reward, steps, and what is set.
RUNS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "well": ("calculator.py:solve", "calculator.py:correct", 5, {}),
    "slow": ("agent.py:rambling", "agent.py:by_length", 5, WILD),
    "fast": ("agent.py:single", "agent.py:digits", 8, {"optimizer.learning_rate": 0.1}),
    "constant": ("agent.py:single", "agent.py:constant", 2, {"backend": "bandit"}),
}
MAKE_TASKS = (
    "import json, calculator; print('\\n'.join(json.dumps(task) for task in calculator.tasks(seed=1, size=120)))"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs lie, each trained by the command."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(CALCULATOR, folder / "calculator.py")
    shutil.copy(HERE / "checked.py", folder / "agent.py")
    bandit_backend.install(folder / "site")
    made = subprocess.run([sys.executable, "-c", MAKE_TASKS], check=True, capture_output=True, text=True, cwd=folder)
    (folder / "tasks.jsonl").write_text(made.stdout)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda name: train(folder, name), RUNS):
            pass
    return folder


def train(folder: Path, name: str) -> None:
    agent, reward, steps, changed = RUNS[name]
    given = {"backend": "embedded"} | SIZE | changed
    backend = ["--backend", given.pop("backend")]
    settings = [part for each, value in given.items() for part in ("--set", f"{each}={value}")]
    command = [
        sys.executable,
        "-m",
        "lightning_sdk.cli",
        "train",
        agent,
        "--tasks",
        "tasks.jsonl",
        "--reward",
        reward,
        "--name",
        name,
        "--steps",
        str(steps),
        "--quiet",
        *backend,
        *settings,
    ]
    home = {"LIGHTNING_HOME": str(folder / "home"), "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=os.environ | home, timeout=280
    )
    assert done.returncode == 0, done.stderr


def check(folder: Path, run: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Type the command."""
    command = [sys.executable, "-m", "lightning_sdk.cli", "check", run, *more]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=60)


def kinds(done: subprocess.CompletedProcess[str]) -> list[str]:
    values = json.loads(done.stdout)
    assert values["learnable"] == (done.returncode == 0), done.stderr
    return [f"{each['severity']} {each['kind']}" for each in values["findings"]]


def test_a_run_that_goes_well_has_no_findings(folder: Path) -> None:
    """Exit code 0, one sentence, one table, and a verdict; by its folder or by its name."""
    done = check(folder, "runs/well")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "runs/well: 5 steps, finished" and "The reward of the role solver" in lines[2]
    assert "fatal" not in done.stdout and "warning" not in done.stdout
    assert check(folder, "well").stdout == done.stdout


def test_a_rate_that_is_too_low_shows_in_the_answers(folder: Path) -> None:
    """They are the same before and after, token for token."""
    done = check(folder, "slow")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1. fatal: The policy hardly moved: 12 of 12 held-out answers are the same before and after" in done.stdout
    assert "Nothing is being learned" in done.stdout.splitlines()[-1]


def test_a_rate_that_is_too_high_destroys_the_model(folder: Path) -> None:
    """Whether its one good step was lucky or not: it ends where no answer earns anything."""
    done = check(folder, "fast", "--json")
    fatal = {"fatal diverging", "fatal no signal", "fatal held-out score worse"}
    assert done.returncode == 1 and kinds(done)[0] in fatal, done.stdout


def test_a_reward_that_is_always_the_same(folder: Path) -> None:
    """From the first step to the last one, with its value."""
    done = check(folder, "constant", "--json")
    assert kinds(done) == ["fatal no signal"]
    finding = json.loads(done.stdout)["findings"][0]
    assert "from step 1 to 2 all rewards of the role solver were equal" in finding["what"]
    assert "every reward was 0.25" in finding["what"]


def test_a_reward_that_is_the_length(folder: Path) -> None:
    """A warning beside what else is wrong: it may be meant so."""
    assert "warning reward follows length" in kinds(check(folder, "slow", "--json"))


def test_the_same_from_python(folder: Path) -> None:
    """A path or text instead of an agent; nothing there is an error that says so."""
    found = lightning.check(folder / "runs" / "slow")
    assert not found.learnable and found.findings[0]["kind"] == "learning rate too low"
    with pytest.raises(SettingError, match="is not the folder or the name of a run"):
        lightning.check(str(folder / "runs" / "none"))


def test_reading_a_run_changes_nothing(folder: Path) -> None:
    """Not a byte of its folder."""
    run = folder / "runs" / "well"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert lightning.check(run).learnable
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["runs/none"], "is not the folder or the name of a run"), (["agent.py:single"], "--tasks FILE")],
)
def test_what_cannot_be_checked(folder: Path, arguments: list[str], words: str) -> None:
    """Exit code 2 and a message, nothing on standard output."""
    done = check(folder, *arguments)
    assert done.returncode == 2 and words in done.stderr and not done.stdout
