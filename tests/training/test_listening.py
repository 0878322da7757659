"""A training with the real engine that listens beyond loopback: a runner joins it there, and strangers do not."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lightning_sdk.errors import HubError, HubRefused
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.system import addresses
from tests.training.agents import TASKS
from tests.training.small_run import SMALL_RUN


def test_the_engine_is_reached_and_guarded_where_the_hub_listens(tmp_path: Path) -> None:
    """Rollouts of a process that joins over the network use the engine at that address, which asks for its key."""
    own = socket.gethostbyname(addresses.own_name())
    if addresses.is_loopback(own):
        pytest.skip("this machine has no address but loopback")
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    (tmp_path / "agent.py").write_text(Path(__file__).with_name("agents.py").read_text())
    command = [sys.executable, "-m", "lightning_sdk.cli"]
    train = f"train agent.py:solve --tasks tasks.jsonl --reward agent.py:length --steps 1 --json --listen tcp://{own}:0"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    training = subprocess.Popen(
        [*command, *train.split(), "--runners", "0", *SMALL_RUN], cwd=tmp_path, text=True, **pipes
    )
    try:
        assert training.stderr
        told = next(line for line in training.stderr if "LIGHTNING_KEY=" in line)
        secret, _, *words = shlex.split(told)
        key, hub = secret.partition("=")[2], words[words.index("--hub") + 1]
        with HubClient(hub, key) as client:
            for method in ("watch", "status", "stop", "interrupt", "train", "evaluate", "check", "validate", "disband"):
                with pytest.raises(HubError, match=f"this key does not permit '{method}'"):
                    client.ask(method)
            while not (given := client.ask("lease", runner="somebody", places=1, wait=10.0)):
                assert training.poll() is None  # it loads its model
            (assignment,) = given
            client.ask("release", runner="somebody")
        endpoint = assignment["endpoint"]
        assert endpoint["url"].startswith(f"http://{own}:")
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{endpoint['url']}/models", timeout=10)
        refused.value.close()
        with HubClient(hub, HubKeys.make().guest) as stranger, pytest.raises(HubRefused, match="wrong key"):
            stranger.ask("lease", runner="stranger", places=1)
        environment = {**os.environ, "LIGHTNING_KEY": key}
        joined = subprocess.run(
            [*command, *words, "--json"],
            cwd=tmp_path,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert joined.returncode == 0, joined.stderr
        assert json.loads(joined.stdout)["rollouts"] == {"ok": 8}
        report, _ = training.communicate(timeout=60)
        assert training.returncode == 0 and json.loads(report)["rollouts_by_status"]["ok"] == 4
    finally:
        training.kill()
        training.communicate()
