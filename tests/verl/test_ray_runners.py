"""Runners as Ray actors: on a Ray of our own, on a cluster of two nodes that runs already, and killed with kill -9.

The command line runs here, where Ray is; the hub and the bandit run in the backend's environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BACKEND_PYTHON = os.environ.get("LIGHTNING_BACKEND_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
RAY = str(Path(sys.executable).with_name("ray"))
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
            f"import sys; sys.path.insert(0, {str(ROOT / 'tests/hub')!r})\n"
            f"import pathlib, bandit_backend; bandit_backend.install(pathlib.Path({str(folder / 'site')!r}))"
        )
        subprocess.run([BACKEND_PYTHON, "-c", install], check=True, timeout=60)
        self.environment = {
            **os.environ, "PYTHONPATH": str(folder / "site"), "RAY_TMPDIR": str(rays), "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0", "LIGHTNING_HOME": str(folder / "home"),
        }  # fmt: skip

    def command(self, runners: str, *more: str) -> list[str]:
        settings = [word for each in SMALL for word in ("--set", each)]
        return [sys.executable, "-m", "lightning_sdk.cli", "train", "agent.py:solve", "--tasks", "tasks.jsonl",
                "--backend", "bandit", "--backend-python", BACKEND_PYTHON, "--name", "run", "--steps", "2", "--json",
                "--runners", runners, *settings, *more]  # fmt: skip

    def train(self, runners: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(runners, *more), cwd=self.folder, env=self.environment, check=False,
                              capture_output=True, text=True, timeout=200)  # fmt: skip

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


def start_node(place: Place, name: str, *words: str) -> subprocess.Popen[bytes]:
    (place.rays / name).mkdir()
    log = (place.rays / f"{name}.log").open("ab")
    return subprocess.Popen(
        [RAY, "start", *words, "--num-cpus=1", "--disable-usage-stats", "--block",
         f"--temp-dir={place.rays / name}"],
        env=place.environment, stdout=log, stderr=log, cwd=place.rays,
    )  # fmt: skip


@pytest.fixture
def cluster(place: Place) -> Iterator[str]:
    """The address of a Ray of two nodes, which have different addresses."""
    nodes = [start_node(place, "a", "--head", "--port=0", "--include-dashboard=false")]
    try:
        address = str(wait_for(lambda: said(place, r"--address='([\d.]+:\d+)'"), "the head's address"))
        nodes.append(start_node(place, "b", f"--address={address}", "--node-ip-address=127.0.0.2"))
        wait_for(lambda: len(nodes_of(place, address)) == 2, "the second node")
        yield address
        assert len(nodes_of(place, address)) == 2, "a Ray that was joined is left alone"
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(60)


def said(place: Place, pattern: str) -> str:
    """What the head said that fits."""
    found = re.search(pattern, (place.rays / "a.log").read_text())
    return found[1] if found else ""


def asked(place: Place, address: str, question: str) -> Any:
    """What a process of its own is told by the cluster."""
    code = (
        f"import json, ray; ray.init({address!r}, log_to_driver=False, logging_level=50); print(json.dumps({question}))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=place.environment, check=True, capture_output=True,
                          text=True, timeout=90)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def nodes_of(place: Place, address: str) -> list[str]:
    found: list[str] = asked(place, address, "[n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']]")
    return found


def wait_for(met: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.2)
    return found


def test_a_ray_of_our_own(place: Place) -> None:
    """The only actor is killed in the middle of a rollout and made again by Ray; Ray ends with the training."""
    done = place.train("ray:1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rollouts_by_status"]["ok"] == 8
    agents = place.agents()
    assert len({each["pid"] for each in agents}) == 2 and "was silent for" in place.hub_log()
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
    assert "was silent for" in place.hub_log()
    wait_for(lambda: not any(Path(f"/proc/{each['pid']}").exists() for each in agents), "the actors to end")


def test_a_ray_of_the_user(place: Place) -> None:
    """A script that has joined a Ray itself keeps it."""
    (place.folder / "script.py").write_text(f"""
import ray, lightning_sdk as lightning
from lightning_sdk import reference
ray.init(num_cpus=1, include_dashboard=False)
agent, best = reference.load("agent.py:solve"), reference.load("agent.py:best")
settings = dict(each.split("=") for each in {SMALL[2:3]!r})
report = lightning.train(agent, "tasks.jsonl", best, backend="bandit", backend_python={BACKEND_PYTHON!r}, steps=1,
    quiet=True, **settings, **{{"rollouts.runner": "ray:1", "rollouts.tasks_per_step": 1, "rollouts.group_size": 2,
    "evaluation.tasks": 1}})
print(report.values["rollouts_by_status"]["ok"], ray.is_initialized(), ray.get(ray.put("still there")))
""")
    (place.seen / "killed").touch()
    done = subprocess.run([sys.executable, "script.py"], cwd=place.folder, env=place.environment, check=False,
                          capture_output=True, text=True, timeout=200)  # fmt: skip
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
    assert "the Ray at '127.0.0.1:9' cannot be used" in done.stderr and "ray start --head" in done.stderr


def test_a_killed_training_leaves_nothing(place: Place) -> None:
    """kill -9 of the training's process ends its Ray and its actors."""
    training = subprocess.Popen(place.command("ray:1", "--steps", "100000"), cwd=place.folder, env=place.environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    (place.seen / "killed").touch()
    wait_for(place.agents, "a rollout")
    (agent,) = {each["pid"] for each in place.agents()}
    training.kill()
    training.wait()
    wait_for(lambda: not Path(f"/proc/{agent}").exists(), "the actor to end")
    wait_for(lambda: not place.processes(), "Ray to end")
