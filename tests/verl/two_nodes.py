"""A Ray of two nodes on this machine, each with its own address, as somebody else would have started it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for

RAY = str(Path(sys.executable).with_name("ray"))
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def two_nodes(*told: str) -> Iterator[str]:
    """Its address. Each node is `told` what it has, in words of `ray start`; both have to be there in the end."""
    folder = Path(tempfile.mkdtemp(prefix="lc", dir="/tmp"))  # sockets lie in it, whose paths have to be short
    nodes = [start(folder, "a", "--head", "--port=0", "--include-dashboard=false", *told)]
    try:
        address = wait_for(lambda: head_address(folder), "the head's address")
        nodes.append(start(folder, "b", f"--address={address}", "--node-ip-address=127.0.0.2", *told))
        wait_for(lambda: alive(address) == 2, "the second node")
        yield address
        assert alive(address) == 2, "a Ray that was joined is left alone"
    finally:
        for each in nodes:
            each.send_signal(signal.SIGTERM)
        for each in nodes:
            each.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [RAY, "start", *words, "--block", f"--temp-dir={folder / name}"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
        )


def head_address(folder: Path) -> str:
    """The address that the head has printed so far."""
    found = re.search(r"--address='([\d.]+:\d+)'", (folder / "a.log").read_text())
    return found[1] if found else ""


def alive(address: str) -> int:
    """The number of nodes, as a separate process is told."""
    code = f"""import json, ray; ray.init({address!r}, log_to_driver=False, logging_level=50)
print(json.dumps(sum(each["Alive"] for each in ray.nodes())))"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
        timeout=90,
    )
    return int(json.loads(done.stdout.splitlines()[-1]))
