"""`lightning.train` as a whole: the real client, seam, stream, hub, engine and learner, with spark.

Where no answer of a model matters, the numpy backend of the hub's tests serves, which starts in a tenth of the time.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import markers
from lightning_sdk.commands.report import Report
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.rollouts import reference
from tests.hub import bandit_backend
from tests.processes import descendants
from tests.training import agents
from tests.training.agents import SMALL, TASKS


@pytest.fixture(autouse=True)
def roles() -> None:
    """The roles of agents.py, which other tests forget."""
    declared = markers.agent.declared
    declared.update(solver=True, onlooker=False, silent=True, broken=True)


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The bandit backend, installed; the setting that chooses it."""
    bandit_backend.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return {"backend": "bandit"}


def train(tmp_path: Path, agent: Callable[..., Any], reward: Callable[..., Any] = agents.length, **more: Any) -> Report:
    settings = {"steps": 1, **SMALL, **more}
    return lightning.train(agent, TASKS, reward, runs=tmp_path, name="run", **settings)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_folder_holds_what_it_should(tmp_path: Path) -> None:
    """Two steps leave config, metrics, events, curve, reports, log, database and a checkpoint in HF format."""
    report = train(tmp_path, agents.solve, steps=2)
    run = tmp_path / "run"
    assert report.folder == run and report.steps == 2 and report.train_seconds > 0
    for name in (
        "config.json",
        "curve.png",
        "report.md",
        "hub.sqlite",
        "spans/000001.log",
        "checkpoints/step-00002/model.safetensors",
        "checkpoints/step-00002/tokenizer.json",
    ):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").glob("events.*"))
    values = json.loads((run / "report.json").read_text())
    for when in ("before", "after"):
        assert {"mean", "low", "high", "n"} <= values["held_out"][when].keys()
        assert values["held_out"][when]["n"] == 2
    steps = lines(run / "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2] and [step["version"] for step in steps] == [1, 2]
    # What the engine sampled and what the learner computes for the same tokens are the same numbers.
    assert all(abs(step["kl_sampler_max"]) < 1e-3 and step["rollouts_ok"] == 4 for step in steps)
    before, after = report.before, report.after
    assert before is not None and after is not None and before.mean >= 0 and before.low is None
    assert "trained   2 steps" in str(report)


@pytest.mark.parametrize(
    ("agent", "backend"), [(agents.asolve, "bandit"), (agents.stream, "embedded"), (agents.astream, "bandit")]
)
def test_agents_of_every_kind_train(
    tmp_path: Path, light: dict[str, Any], agent: Callable[..., Any], backend: str
) -> None:
    """Async agents, generators and async generators are run, and their answers reach the reward whole."""
    seen: list[str] = []

    def reward(task: dict[str, Any], answer: str) -> float:
        seen.append(answer)
        return agents.length(task, answer)

    report = train(tmp_path, agent, reward, backend=backend)
    assert report.values["rollouts_by_status"]["ok"] == 4 and report.values["calls"] >= 4
    assert all(isinstance(answer, str) for answer in seen)


def test_agents_side_needs_nothing_heavy(tmp_path: Path) -> None:
    """The agent's process trains without torch, NumPy, aiohttp or rich: those live with the backend."""
    script = f"""
        import sys
        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "numpy", "transformers", "aiohttp", "rich", "msgspec"):
                    raise ImportError(name + " is not for the agent's process")
        sys.meta_path.insert(0, Blocker())
        import lightning_sdk
        from tests.training import agents
        print(lightning_sdk.train(agents.solve, agents.TASKS, agents.length, steps=1, runs={str(tmp_path)!r},
                                  backend_python={sys.executable!r}, **agents.SMALL))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "trained   1 step in" in done.stdout


def test_processes_survive_a_kill(tmp_path: Path, light: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner process killed in the middle of a rollout loses nothing: the rollout is run again elsewhere."""
    monkeypatch.setenv("KILL_MARK", str(tmp_path / "mark"))
    report = train(tmp_path, agents.killed_once, **light, **{"rollouts.runner": "2", "rollouts.timeout": 30.0})
    assert (tmp_path / "mark").exists()
    assert report.values["rollouts_by_status"]["ok"] == 4
    assert [step["step"] for step in lines(tmp_path / "run" / "metrics.jsonl")] == [1]


@pytest.mark.parametrize(
    ("killed", "error", "said"),
    [
        ("lightning_hub", lightning.HubGone, r"the hub \(process \d+\) died"),
        ("lightning_embedded", lightning.BackendDied, r"the embedded backend's process \d+ was killed with SIGKILL"),
    ],
)
def test_resume_goes_on_where_it_stopped(tmp_path: Path, killed: str, error: type[Exception], said: str) -> None:
    """Killed after its first checkpoint, a run says how it goes on: with the next step, to the end."""
    killer = threading.Thread(target=_kill_after, args=(tmp_path / "run", 2, killed))
    killer.start()
    with pytest.raises(error, match=rf"{said}[\s\S]*--resume .* continues from the last checkpoint, after step \d"):
        train(tmp_path, agents.solve, steps=500, save_every=1)
    killer.join()
    done = len(lines(tmp_path / "run" / "metrics.jsonl"))
    report = train(tmp_path, agents.solve, steps=done + 1, save_every=1, resume=tmp_path / "run")
    assert report.folder == tmp_path / "run"
    assert [step["step"] for step in lines(tmp_path / "run" / "metrics.jsonl")] == list(range(1, done + 2))


def test_a_backend_that_is_killed_while_it_starts(tmp_path: Path) -> None:
    """As by the kernel where memory is short: it is said how it ended and what to type, and that trains."""
    killer = threading.Thread(target=_kill_after, args=(tmp_path / "run", 0, "lightning_embedded"))
    killer.start()
    told = r"was killed with SIGKILL[\s\S]* while it started[\s\S]*--resume .*run.* starts again at step 1"
    with pytest.raises(lightning.BackendDied, match=told):
        train(tmp_path, agents.solve, steps=1)
    killer.join()
    assert train(tmp_path, agents.solve, resume=tmp_path / "run").values["steps"] == 1


def _kill_after(run: Path, steps: int, module: str) -> None:
    """kill -9 this process's descendant that runs the module, once so many steps are done."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        if done >= steps and (found := descendants(module, os.getpid())):
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("agent", "reward", "error", "said"),
    [
        (agents.ask_nobody, agents.length, lightning.NothingToTrain, "onlooker"),
        (agents.silent, agents.length, lightning.NothingToTrain, "made no model call"),
        (agents.broken, agents.length, lightning.RolloutsFailed, r"KeyError: 'customer_id'[\s\S]*agents.py"),
        (agents.solve, agents.raising, lightning.RolloutsFailed, r"raising\(\) raised ValueError: no such column"),
        (agents.solve, agents.not_a_number, lightning.RolloutsFailed, r"not_a_number\(\) gave nan"),
        (agents.solve, agents.nothing, lightning.RolloutsFailed, r"nothing\(\) gave None"),
        (agents.solve, agents.text, lightning.RolloutsFailed, r"text\(\) gave 'good'"),
    ],
)
def test_what_goes_wrong_is_said(
    tmp_path: Path,
    light: dict[str, Any],
    agent: Callable[..., Any],
    reward: Callable[..., Any],
    error: type[Exception],
    said: str,
) -> None:
    """An agent or a reward that cannot teach anything stops the run at once, with the cause in words."""
    with pytest.raises(error, match=said):
        train(tmp_path, agent, reward, **light)


def test_unknown_role_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A misspelt role would train nothing for an hour."""
    with pytest.raises(lightning.SettingError, match=r"no agent has the role 'sovler'; declared roles: .*solver"):
        train(tmp_path, agents.solve, roles="sovler")
    with pytest.raises(lightning.SettingError, match=r"setting role\.sovler: no agent has that role; declared roles"):
        train(tmp_path, agents.solve, role={"sovler": {"weight": 0.5}})
    assert not (tmp_path / "run").exists()


def test_model_folder_that_is_none(tmp_path: Path) -> None:
    """A folder without a model is refused with what is missing."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(lightning.ModelError, match=r"empty.*config.json"):
        train(tmp_path, agents.solve, model=str(tmp_path / "empty"))


def test_backend_that_is_not_installed(tmp_path: Path) -> None:
    """The message lists the backends there are."""
    with pytest.raises(lightning.SettingError, match=r"'nope'.*embedded"):
        train(tmp_path, agents.solve, backend="nope")


def test_backend_python_that_is_none(tmp_path: Path) -> None:
    """An interpreter that does not exist, or that has no backend, is named."""
    with pytest.raises(lightning.HubError, match="cannot run /no/python"):
        train(tmp_path, agents.solve, backend_python="/no/python")


def test_lambda_in_processes_is_refused(tmp_path: Path) -> None:
    """What another process cannot load by name is refused with the way out."""
    with pytest.raises(lightning.SettingError, match="runner='threads'"):
        reference.of(lambda task: task)


def test_evaluate_scores_without_training(tmp_path: Path, light: dict[str, Any]) -> None:
    """`evaluate` gives the score of a model and leaves no checkpoint."""
    settings = {**light, "quiet": True}
    report = lightning.evaluate(agents.solve, TASKS[:4], lambda task, answer: 1.0, runs=tmp_path, name="e", **settings)
    assert report.after is not None and (report.after.mean, report.after.n) == (1.0, 4)
    assert not list((tmp_path / "e").glob("checkpoints/*"))


def test_stream_returns_to_the_users_hub(tmp_path: Path, light: dict[str, Any]) -> None:
    """A process that streams to a hub it has chosen does so again after `train`."""
    (tmp_path / "own").mkdir()
    hub = HubProcess(tmp_path / "own")
    try:
        lightning.init(hub.address, hub.key)
        train(tmp_path, agents.solve, **light)
        stream: Any = lightning.status()["stream"]
        with lightning.rollout({}):
            pass
        assert sys.modules["lightning_sdk.session"]._session.stream.address == hub.address and stream is not None
    finally:
        lightning.shutdown()
        hub.stop()
