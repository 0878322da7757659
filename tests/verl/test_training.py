"""Training on VERL: its real loop on Ray, with a real vLLM, on this machine's CPU, from an agent in another process."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import descendants
from tests.verl import verl_runs as runs
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps, whose vLLM server is killed after the second, and again while weights are sent to it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    process = runs.begin(folder, 10)
    runs.wait_for_step(folder, 2, process)
    (engine,) = descendants("VLLM::EngineCore", process.pid)
    os.kill(engine, signal.SIGKILL)
    wait_for(lambda: "it serves version" in _log(folder), "the server is started again", 400)
    (engine,) = descendants("VLLM::EngineCore", process.pid)
    (worker,) = descendants("ray::WorkerDict", process.pid)
    _stop_while_weights_are_sent(engine, worker)
    os.kill(engine, signal.SIGKILL)
    runs.end(process, folder)
    return folder


def _stop_while_weights_are_sent(engine: int, worker: int) -> None:
    """Suspend this engine when the process that trains sends it weights, which then waits for it."""

    def sends() -> bool:
        return b"update_weights" in Path(f"/proc/{worker}/cmdline").read_bytes()

    def is_caught() -> bool:
        wait_for(sends, "weights are sent", 400)
        os.kill(engine, signal.SIGSTOP)
        if all(sends() for _ in range(20) if time.sleep(0.1) is None):
            return True
        os.kill(engine, signal.SIGCONT)
        return False

    wait_for(is_caught, "suspended in time", 400)


def _log(folder: Path) -> str:
    return (folder / "runs" / "run" / "backend.log").read_text(errors="replace")


def test_the_reward_rises(trained_run: Path) -> None:
    """In a few steps, to what the embedded backend reaches with them."""
    rewards = [each["reward_mean/solver"] for each in runs.steps(trained_run)]
    assert len(rewards) == 10 and sum(rewards[-3:]) > sum(rewards[:3]) + 0.15, rewards


def test_each_update_reaches_vllm(trained_run: Path) -> None:
    """Sampler and trainer agree in float32: the weights that sampled are the weights that are trained."""
    for each in runs.steps(trained_run):
        assert abs(each["kl_sampler"]) < 1e-3 and each["version"] == each["step"]
        assert each["staleness"] == 0


def test_a_killed_vllm_server_is_started_again(trained_run: Path) -> None:
    """With the newest weights, and the rollouts on it are asked again: none failed."""
    log = _log(trained_run)
    assert log.count("it serves version") == 2 and "vLLM server 0 ended while loading weights" in log
    assert sum(each["rollouts_ok"] for each in runs.steps(trained_run)) == 640


def test_the_checkpoint_is_a_model_in_hugging_face_format(trained_run: Path) -> None:
    """Whatever reads such folders loads it; VERL's shards lie beside it."""
    folder = trained_run / "runs" / "run" / "checkpoints" / "step-00010"
    assert json.loads((folder / "checkpoint.json").read_text())["version"] == 10
    assert (folder / "model.safetensors").exists() and (folder / "verl").is_dir()


def test_a_run_goes_on_from_its_checkpoint(trained_run: Path) -> None:
    """With VERL's optimizer, from the step after it, and the weights that were saved are served at once. A setting of
    the optimizer that was given for going on acts: every weight is 0.9 of what it was, but for the step itself."""
    process = runs.begin(trained_run, 11, resume=True, **{"optimizer.weight_decay": 100.0})
    runs.end(process, trained_run)
    norms = [_norm(trained_run / "runs" / "run" / "checkpoints" / f"step-{step:05d}") for step in (10, 11)]
    assert norms[1] == pytest.approx(0.9 * norms[0], rel=0.02)
    later = runs.steps(trained_run)
    assert [each["step"] for each in later] == list(range(1, 12))
    assert abs(later[-1]["kl_sampler"]) < 1e-3
    assert later[-1]["reward_mean/solver"] > later[0]["reward_mean/solver"]


def _norm(checkpoint: Path) -> float:
    """The norm of all weights together."""
    weights = load_file(checkpoint / "model.safetensors")
    return float(sum((each.float() ** 2).sum() for each in weights.values()) ** 0.5)


def test_a_run_tells_where_its_start_went(trained_run: Path) -> None:
    """By phases that add up to the whole, in its facts and in the backend's log."""
    facts = json.loads((trained_run / "runs" / "run" / "config.json").read_text())["facts"]
    spent = {name.removeprefix("start."): each for name, each in facts.items() if name.startswith("start.")}
    total = spent.pop("total")
    assert list(spent) == ["imports", "ray", "model", "trainer", "workers", "vllm", "weights"]
    assert all(each > 0 for each in spent.values()) and sum(spent.values()) == pytest.approx(total, abs=0.5)
    log = _log(trained_run)
    assert "started in " in log and f"weights {spent['weights']:.1f}" in log
