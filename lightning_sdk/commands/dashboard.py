"""The dashboard: its process, for the command `lightning-sdk dashboard` and beside a training."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from lightning_sdk.commands.options import add_backend_python, add_runs
from lightning_sdk.errors import HubError, SettingError
from lightning_sdk.hub.backend_python import explain_start_errors
from lightning_sdk.system.folders import find_run_folder

SWITCH = "LIGHTNING_DASHBOARD"
"""The environment variable that keeps trainings from starting one, by the value 'off'."""
_STOP_SECONDS = 5.0


class DashboardProcess:
    """A dashboard that we started, and therefore stop. It ends by itself when this process dies."""

    def __init__(self, config: dict[str, Any], python: str | None = None, stderr: int | None = None) -> None:
        """Start it; `config` is what `python -m lightning_dashboard` reads.

        Raises:
            HubError: that Python cannot be run.
        """
        self._python = python or sys.executable
        command = [self._python, "-m", "lightning_dashboard"]
        with explain_start_errors(self._python):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self._tell(json.dumps(config))

    def read_url(self) -> str:
        """The address to open; waits for it.

        Raises:
            HubError: it did not start; the message says why as far as it is known.
        """
        line = _stream(self._process.stdout).readline()
        told = json.loads(line) if line.strip() else {}
        if "url" not in told:
            raise HubError(
                told.get("error")
                or f"the dashboard did not start: {self._python} needs lightning-agent-sdk[hub]; name the Python of "
                "an environment that has it: --backend-python"
            )
        return str(told["url"])

    def wait(self) -> None:
        """Block until it ends."""
        self._process.wait()

    def stop(self) -> None:
        """End it. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and `read_url` says so
            stdin = _stream(self._process.stdin)
            stdin.write(line + "\n")
            stdin.flush()


def watch_run(folder: Path, *, hub: str, key: str, python: str, show: Callable[[str], None]) -> DashboardProcess | None:
    """A dashboard of a run that begins; None if the environment says that none is wanted. Its address is shown as soon
    as it is known: nothing waits for it, and a training goes on without it."""
    if os.environ.get(SWITCH, "").lower() == "off":
        return None
    config = {"places": [str(folder)], "run": folder.name, "hub": hub, "key": key}
    try:
        process = DashboardProcess(config, python, subprocess.DEVNULL)
    except HubError:
        return None

    def tell() -> None:
        # That environment may have none, or the training may have ended before.
        with contextlib.suppress(HubError, ValueError, OSError):
            show(f"dashboard {process.read_url()}")

    threading.Thread(target=tell, name="dashboard", daemon=True).start()
    return process


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("run_names", nargs="*", metavar="RUN", help="name or folder of a run; default: all runs of --runs")
    add_runs(parser)
    add("--port", type=int, default=0, help="port on this machine; 0 picks a free one (default: %(default)s)")
    add("--no-browser", action="store_true", help="print the address only")
    add_backend_python(parser, "hub")
    add("--json", action="store_true", help="print the address as one JSON object")


def run(options: argparse.Namespace) -> None:
    """Show runs until Ctrl-C."""
    places = [find_run_folder(each, options.runs) for each in options.run_names] or [_folder_of_runs(options.runs)]
    name = places[0].name if len(options.run_names) == 1 else ""
    config = {"places": [str(each) for each in places], "run": name, "port": options.port}
    process = DashboardProcess(config, options.backend_python)
    try:
        url = process.read_url()
        print(json.dumps({"url": url}) if options.json else _describe(url, places), flush=True)
        if not options.no_browser and sys.stdout.isatty():
            webbrowser.open(url)
        process.wait()
    finally:
        process.stop()


def _folder_of_runs(runs: str) -> Path:
    folder = Path(runs).expanduser().absolute()
    if not folder.is_dir():
        raise SettingError(f"there is no folder {folder}; name a run, or the folder of runs with --runs FOLDER")
    return folder


def _describe(url: str, places: Sequence[Path]) -> str:
    return f"dashboard {url}\nshows     {', '.join(map(str, places))}\nCtrl-C stops it."


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _close(pipe: IO[str] | None) -> None:
    with contextlib.suppress(BrokenPipeError):
        if pipe is not None:
            pipe.close()
