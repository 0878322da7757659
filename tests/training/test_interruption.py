"""Ctrl-C, as a terminal sends it: to every process of its foreground group."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.agents import TASKS
from tests.training.small_run import SMALL_RUN
from tests.waiting import wait_for

HERE = Path(__file__).parent
TRAIN = [
    "-m",
    "lightning_sdk.cli",
    "train",
    "agent.py:solve",
    "--tasks",
    "tasks.jsonl",
    "--reward",
    "agent.py:length",
    "--name",
    "run",
    "--steps",
    "100000",
    *SMALL_RUN,
]
SCRIPT = """
import agent, lightning_sdk as lightning
if __name__ == "__main__":
    lightning.train(agent.solve, "tasks.jsonl", agent.length, name="run", steps=100000, **{
        "rollouts.tasks_per_step": 2, "rollouts.group_size": 2, "evaluation.tasks": 2, "sampling.max_tokens": 8})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(task) for task in TASKS))
    (tmp_path / "agent.py").write_text((HERE / "agents.py").read_text())
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def interrupt(folder: Path, command: list[str], steps: int) -> tuple[int, str, str]:
    """Exit code, standard output and error of a training that gets Ctrl-C after so many steps."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    metrics = folder / "runs" / "run" / "metrics.jsonl"

    def has_come_so_far() -> bool:
        assert process.poll() is None, process.communicate()
        return metrics.exists() and len(metrics.read_text().splitlines()) >= steps

    wait_for(has_come_so_far, f"{steps} steps", 100)
    os.killpg(process.pid, signal.SIGINT)
    said, told = process.communicate(timeout=60)
    return process.returncode, said, told


@pytest.mark.parametrize("runners", [[], ["--runners", "2"]], ids=["threads", "processes"])
def test_ctrl_c_keeps_what_was_learned_and_says_how_to_go_on(folder: Path, runners: list[str]) -> None:
    """The step under way is finished and saved, and the last line names the checkpoint and what to type."""
    code, _, told = interrupt(folder, [*TRAIN, *runners], 2)
    assert code == 130
    assert "press Ctrl-C again" in told and "Traceback" not in told
    steps = len((folder / "runs/run/metrics.jsonl").read_text().splitlines())
    last = told.splitlines()[-1]
    assert f"stopped after step {steps}" in last and "--resume runs/run" in last
    assert (folder / f"runs/run/checkpoints/step-{steps:05d}/model.safetensors").is_file()
    assert json.loads((folder / "runs/run/report.json").read_text())["status"] == "stopped"


def test_a_script_ends_with_the_same_words_and_a_short_traceback(folder: Path) -> None:
    """KeyboardInterrupt rises from `train()` itself, not from the socket that it waited on."""
    code, _, told = interrupt(folder, ["script.py"], 1)
    assert code in {130, -signal.SIGINT}
    trace = told[told.index("Traceback") :]
    assert "zmq" not in trace and len(trace.splitlines()) < 15
    assert "--resume runs/run" in trace.splitlines()[-1]
