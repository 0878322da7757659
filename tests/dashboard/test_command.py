"""`lightning-sdk dashboard`: what it prints, and when it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_runs import MadeRollout, MadeRun

from lightning_sdk.commands.dashboard import DashboardProcess, watch_run
from lightning_sdk.errors import HubError


@contextmanager
def start_command(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, in a folder with a run `solve` in `runs`."""
    run = MadeRun(folder / "runs" / "solve")
    run.add([MadeRollout(group="1-0")])
    run.close()
    command = [sys.executable, "-m", "lightning_sdk.cli", "dashboard", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def read_runs(url: str) -> list[str]:
    """The names of the runs behind a printed address."""
    base, _, token = re.sub(r"/#/.*\?", "?", url).partition("?token=")
    request = urllib.request.Request(f"{base}/api/runs", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return [run["name"] for run in json.load(reply)["runs"]]


@pytest.mark.parametrize("arguments", [("solve",), ("runs/solve",), ()])
def test_the_printed_address_opens_runs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """By name, by folder, or all of the folder of runs; Ctrl-C ends it."""
    with start_command(tmp_path, *arguments, "--json") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert ("/#/run/solve?token=" in url) == bool(arguments)
        assert read_runs(url) == ["solve"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


def test_what_it_cannot_show_is_said(tmp_path: Path) -> None:
    """A run that is not there, and a port that is taken."""
    with start_command(tmp_path, "nothing") as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and "nothing is not the folder or the name of a run" in errors
    first = DashboardProcess({"places": [str(tmp_path)]})
    try:
        port = int(re.findall(r":(\d+)/", first.read_url())[0])
        second = DashboardProcess({"places": [str(tmp_path)], "port": port})
        with pytest.raises(HubError, match=f"port {port} cannot be used"):
            second.read_url()
        second.stop()
    finally:
        first.stop()


def test_a_training_starts_none_where_none_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment; and none where its Python is missing, which the training does not mind."""
    told: list[str] = []
    monkeypatch.setenv("LIGHTNING_DASHBOARD", "off")
    assert watch_run(tmp_path, hub="", key="", python=sys.executable, show=told.append) is None
    monkeypatch.delenv("LIGHTNING_DASHBOARD")
    assert watch_run(tmp_path, hub="", key="", python="/no/such/python", show=told.append) is None
    assert not told
