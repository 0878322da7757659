"""`--engine vllm` as a whole: the agent, the hub, the torch learner and a real vLLM server, which is killed once."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_embedded.process import start
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from tests.vllm import vllm_calculator as calculator
from tests.waiting import wait_for

STEPS = 16
SETTINGS: dict[str, Any] = {
    "rollouts.tasks_per_step": 8,
    "rollouts.group_size": 8,
    "rollouts.timeout": 400.0,
    "rollouts.deadline": 600.0,
    "evaluation.tasks": 40,
    "optimizer.learning_rate": 1e-3,
    "serving.max_length": 512,
}


def steps(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def api_servers(run: Path) -> list[int]:
    """The process ids of the servers that write into this run's folder."""
    log = str(run / "vllm-0.log")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            if b"vllm.entrypoints.openai.api_server" in words and str((process / "fd" / "2").readlink()) == log:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_reward_rises_and_a_killed_server_is_survived(tmp_path: Path) -> None:
    """The calculator agent, with tool calls through vLLM; its server is killed -9 in the middle of training."""
    lightning.init()
    run, killed = tmp_path / "run", threading.Event()

    def kill() -> None:
        wait_for(lambda: len(steps(run)) >= 3, "three steps", 800)
        (victim,) = api_servers(run)
        os.kill(victim, signal.SIGKILL)
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    report = lightning.train(
        calculator.solve,
        calculator.tasks(1, 200),
        calculator.correct,
        held_out=calculator.tasks(2, 40),
        steps=STEPS,
        engine="vllm",
        runs=tmp_path,
        name="run",
        quiet=True,
        **SETTINGS,
    )
    killer.join()
    done = steps(run)
    assert killed.is_set() and len(done) == STEPS
    assert "is restarted" in (run / "backend.log").read_text()
    rewards = [step["reward_mean"] for step in done]
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.1
    assert report.before is not None and report.after is not None and report.after.mean > report.before.mean
    # In every step, after the restart too, vLLM and the learner agree about the tokens that vLLM sampled.
    assert max(abs(step["kl_sampler_max"]) for step in done) < 1e-3
    wait_for(lambda: not api_servers(run), "the end of its processes")


def test_rollouts_go_on_while_the_learner_computes(tmp_path: Path) -> None:
    """Asynchronous training: weights are published between two tokens of rollouts that are under way."""
    lightning.init()
    report = lightning.train(
        calculator.solve,
        calculator.tasks(1, 100),
        calculator.correct,
        held_out=calculator.tasks(2, 8),
        steps=6,
        engine="vllm",
        runs=tmp_path,
        name="run",
        quiet=True,
        **SETTINGS,
        **{"rollouts.staleness": 1},
    )
    done = steps(tmp_path / "run")
    assert report.steps == 6 and [step["version"] for step in done] == [1, 2, 3, 4, 5, 6]
    assert max(step["staleness_max"] for step in done) == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text())["facts"]["tool_parser"] == "hermes"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"serving.replicas": 2}, r"serving\.replicas=2 .*set engine=vllm"),
        ({"vllm.max_num_seqs": "64"}, r"vllm\.max_num_seqs='64' .*set engine=vllm"),
        ({"engine": "vllm", "vllm.port": "8000"}, r"vllm\.port='8000': free ports are chosen"),
        ({"engine": "vllm", "vllm.api-key": "x"}, r"vllm\.api-key='x': each server has its own key"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    """At start, by the setting's name."""
    with pytest.raises(SettingError, match=words):
        start(Settings.from_dict(settings), tmp_path)
