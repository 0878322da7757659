"""Runners as Ray actors: on a Ray that the tests start, on a running cluster of two nodes, and killed with kill -9.

The command line runs here, where Ray is; the hub and the bandit run in the backend's environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wait_until_ended
from tests.verl.two_nodes import ENVIRONMENT, two_nodes
from tests.waiting import wait_for

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BACKEND_PYTHON = os.environ.get("LIGHTNING_BACKEND_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
SMALL = ["rollouts.tasks_per_step=2", "rollouts.group_size=2", "algorithm.aggregation=token-mean", "evaluation.tasks=1"]


class Place:
    """A folder with agent, neighbour, tasks and the bandit."""

    def __init__(self, folder: Path, rays: Path) -> None:
        self.folder, self.rays, self.seen = folder, rays, folder / "seen"
        self.seen.mkdir()
        shutil.copy(HERE / "ray_agent.py", folder / "agent.py")
        (folder / "neighbour.py").write_text('ADDRESS = "http://127.0.0.1:9/v1"\n')
        tasks = [{"question": f"which arm? {number}", "seen": str(self.seen)} for number in range(5)]
        (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
        install = (
            "import pathlib; from tests.hub import bandit_backend\n"
            f"bandit_backend.install(pathlib.Path({str(folder / 'site')!r}))"
        )
        subprocess.run([BACKEND_PYTHON, "-c", install], check=True, timeout=60)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(folder / "site"),
            "RAY_TMPDIR": str(rays),
            "LIGHTNING_HOME": str(folder / "home"),
            **ENVIRONMENT,
        }

    def command(self, runners: str, *more: str) -> list[str]:
        settings = [word for each in SMALL for word in ("--set", each)]
        return [
            sys.executable,
            "-m",
            "lightning_sdk.cli",
            "train",
            "agent.py:solve",
            "--tasks",
            "tasks.jsonl",
            "--backend",
            "bandit",
            "--backend-python",
            BACKEND_PYTHON,
            "--name",
            "run",
            "--steps",
            "2",
            "--json",
            "--runners",
            runners,
            *settings,
            *more,
        ]

    def train(self, runners: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(runners, *more),
            cwd=self.folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def agents(self) -> list[dict[str, Any]]:
        """Where each rollout ran."""
        return [json.loads(path.read_text()) for path in self.seen.iterdir() if path.name != "killed"]

    def hub_log(self) -> str:
        return (self.folder / "runs" / "run" / "hub.log").read_text()

    def processes(self) -> list[int]:
        """Those of the Rays that keep their files in this test's folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.rays).encode() in entry.read_bytes():
                    found.append(int(entry.parent.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    rays = Path(tempfile.mkdtemp(prefix="lr", dir="/tmp"))  # sockets lie in it, whose paths have to be short
    place = Place(tmp_path, rays)
    yield place
    wait_for(lambda: not place.processes(), "Ray to end")
    shutil.rmtree(rays, ignore_errors=True)


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray of two nodes."""
    with two_nodes("--num-cpus=1") as address:
        yield address


def test_a_ray_of_our_own(place: Place) -> None:
    """The only actor is killed in the middle of a rollout and made again by Ray; Ray ends with the training."""
    done = place.train("ray:1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rollouts_by_status"]["ok"] == 8
    agents = place.agents()
    assert len({each["pid"] for each in agents}) == 2 and "ended or lost its connection" in place.hub_log()
    assert {each["folder"] for each in agents} == {str(place.folder)}
    wait_for(lambda: not place.processes(), "Ray to end")


def test_a_cluster_that_runs_already(place: Place, cluster: str) -> None:
    """Actors on both nodes have the agent's folder brought to them, and reach hub and engine from there."""
    done = place.train(f"ray:4@{cluster}", "--steps", "4", "--set", "rollouts.concurrency=4")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rollouts_by_status"]["ok"] == 16
    agents = place.agents()
    assert len({each["pid"] for each in agents}) >= 3
    assert all("working_dir" in each["folder"] for each in agents)
    host = json.loads((place.folder / "runs" / "run" / "config.json").read_text())["settings"]["serving"]["host"]
    assert host == cluster.partition(":")[0]
    assert "ended or lost its connection" in place.hub_log()
    wait_until_ended(*(each["pid"] for each in agents))


def test_a_ray_of_the_user(place: Place) -> None:
    """A script that has joined a Ray itself keeps it."""
    (place.folder / "script.py").write_text(f"""
import ray, lightning_sdk as lightning
from lightning_sdk.rollouts import reference
ray.init(num_cpus=1, include_dashboard=False)
agent, best = reference.load("agent.py:solve"), reference.load("agent.py:best")
settings = dict(each.split("=") for each in {SMALL[2:3]!r})
report = lightning.train(agent, "tasks.jsonl", best, backend="bandit", backend_python={BACKEND_PYTHON!r}, steps=1,
    quiet=True, **settings, **{{"rollouts.runner": "ray:1", "rollouts.tasks_per_step": 1, "rollouts.group_size": 2,
    "evaluation.tasks": 1}})
print(report.values["rollouts_by_status"]["ok"], ray.is_initialized(), ray.get(ray.put("still there")))
""")
    (place.seen / "killed").touch()
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=place.folder,
        env=place.environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 True still there"


def test_an_agent_that_does_not_load_there(place: Place) -> None:
    """When no actor can load the agent, the training ends with what the last one said."""
    (place.folder / "nowhere_but_here").touch()
    done = place.train("ray:1")
    assert done.returncode == 1
    assert "every runner on Ray has ended" in done.stderr and "no database on this node" in done.stderr


def test_no_ray_at_that_address(place: Place) -> None:
    """The message says how a Ray is started."""
    done = place.train("ray:1@127.0.0.1:9")
    assert done.returncode == 1
    assert "the Ray cluster at '127.0.0.1:9' cannot be used" in done.stderr and "ray start --head" in done.stderr


def test_a_killed_training_leaves_nothing(place: Place) -> None:
    """kill -9 of the training's process ends its Ray and its actors."""
    training = subprocess.Popen(
        place.command("ray:1", "--steps", "100000"),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (place.seen / "killed").touch()
    wait_for(place.agents, "a rollout")
    (agent,) = {each["pid"] for each in place.agents()}
    training.kill()
    training.wait()
    wait_until_ended(agent)
    wait_for(lambda: not place.processes(), "Ray to end")
