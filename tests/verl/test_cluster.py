"""Training on a Ray that runs already: two nodes, joined by address and left as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verl import two_nodes
from tests.verl import verl_runs as runs

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray of two nodes, each of which tells of one GPU."""
    for name, value in two_nodes.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with two_nodes.two_nodes("--num-cpus=8", "--num-gpus=1") as address:
        yield address


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
    with pytest.raises(AssertionError, match=r"this Ray cluster has 2 machines with 1, 1 GPUs, but cluster\.nodes=3"):
        runs.end(process, tmp_path, 200.0)
