"""Training on a Ray that runs already: two nodes, joined by address and left as they were."""

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
from collections.abc import Iterator
from pathlib import Path

import pytest
import verl_runs as runs

pytestmark = pytest.mark.timeout(900)

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray of two nodes with addresses of their own, each of which tells of one GPU."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="lc", dir="/tmp"))  # sockets lie in it, whose paths have to be short
    nodes = [node(folder, "a", "--head", "--port=0", "--include-dashboard=false")]
    try:
        address = head(folder)
        nodes.append(node(folder, "b", f"--address={address}", "--node-ip-address=127.0.0.2"))
        deadline = time.monotonic() + 60
        while alive(address) < 2:
            assert time.monotonic() < deadline, "the second node did not come"
        yield address
        assert alive(address) == 2, "a Ray that was joined is left alone"
    finally:
        for each in nodes:
            each.send_signal(signal.SIGTERM)
        for each in nodes:
            each.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def node(folder: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen([RAY, "start", *words, "--num-cpus=8", "--num-gpus=1", "--disable-usage-stats",
                                 "--block", f"--temp-dir={folder / name}"],
                                stdout=log, stderr=log, cwd=folder)  # fmt: skip


def head(folder: Path) -> str:
    deadline = time.monotonic() + 60
    while not (found := re.search(r"--address='([\d.]+:\d+)'", (folder / "a.log").read_text())):
        assert time.monotonic() < deadline, "the head did not start"
        time.sleep(0.2)
    return found[1]


def alive(address: str) -> int:
    """Nodes, as a process of its own is told."""
    code = f"""import json, ray; ray.init({address!r}, log_to_driver=False, logging_level=50)
print(json.dumps(sum(each["Alive"] for each in ray.nodes())))"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    return int(json.loads(done.stdout.splitlines()[-1]))


def test_two_nodes_train_and_stay(tmp_path: Path, cluster: str) -> None:
    """A process that trains and a vLLM server on each; the Ray is there afterwards."""
    process = runs.begin(tmp_path, 2, **{"cluster.address": cluster, "cluster.nodes": 2})
    runs.end(process, tmp_path, 800.0)
    facts = json.loads((tmp_path / "runs" / "run" / "config.json").read_text())["facts"]
    assert (facts["nodes"], facts["gpus_per_node"], facts["vllm_servers"]) == (2, 1, 2)
    done = runs.steps(tmp_path)
    assert [step["version"] for step in done] == [1, 2]
    assert all(abs(step["kl_sampler"]) < 1e-3 for step in done)


def test_what_the_ray_lacks_is_told(tmp_path: Path, cluster: str) -> None:
    """Machines and GPUs that are not there, before anything of VERL's starts."""
    process = runs.begin(tmp_path, 2, **{"cluster.address": cluster, "cluster.nodes": 3})
    with pytest.raises(AssertionError, match=r"this Ray has 2 machines with 1, 1 GPUs, and cluster\.nodes=3"):
        runs.end(process, tmp_path, 200.0)
