"""What becomes of a real vLLM server when something goes wrong: nothing is left, and the reason is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_process.source import locate
from lightning_sdk.settings import Settings
from lightning_vllm.command import ServerPlacement
from lightning_vllm.launch import launcher
from lightning_vllm.model_reader import read_model_info
from lightning_vllm.server import ServerGone
from tests.vllm.served import MODEL, group
from tests.waiting import wait_for

START = """
import sys, time
from pathlib import Path
from lightning_process.source import locate
from lightning_sdk.settings import Settings
from lightning_vllm.command import ServerPlacement
from lightning_vllm.launch import launcher
from lightning_vllm.model_reader import read_model_info
settings = Settings.from_dict({"engine": "vllm"})
server = launcher(settings, read_model_info(locate("spark")), "spark")(ServerPlacement(), Path(sys.argv[1]))
print(server.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_starter_leaves_no_process(tmp_path: Path) -> None:
    """kill -9 of the process that started a server ends vLLM's API server, its engine and its worker."""
    starter = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert starter.stdout is not None
    leader = int(starter.stdout.readline())
    wait_for(lambda: "VLLM::Worker" in group(leader).values(), "a worker runs", 400)
    assert {"VLLM::EngineCore", "VLLM::Worker"} <= set(group(leader).values())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    wait_for(lambda: not group(leader), "nothing is left")


def test_a_server_that_cannot_start_tells_the_reason(tmp_path: Path) -> None:
    """The first error of vLLM's log is in the message, which ends with the log's last lines."""
    settings = Settings.from_dict({"engine": "vllm", "vllm.block_size": "16"})
    server = launcher(settings, read_model_info(locate(MODEL)), MODEL)(ServerPlacement(), tmp_path / "vllm-0.log")
    try:
        with pytest.raises(ServerGone, match=r"ended while it started \(ValueError: No common block size(.|\n)*exit"):
            server.wait(600)
    finally:
        server.close()
    assert not group(server.pid)
