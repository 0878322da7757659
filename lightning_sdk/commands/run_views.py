"""The views of the dashboard, asked by this process: the terminal and notebooks show what the page shows.

A process of the environment that has the hub reads the runs. It ends when this process does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from lightning_sdk.errors import HubError, make_error
from lightning_sdk.hub.backend_python import explain_start_errors

_STOP_SECONDS = 5.0


class RunViews:
    """Views of some runs. Any thread may ask; answers come one after the other."""

    def __init__(self, places: Sequence[Path], python: str | None = None) -> None:
        """`places`: run folders, or folders of runs. `python`: that of the environment with the hub; by default this.

        Raises:
            HubError: that Python cannot be run, or has no hub.
        """
        self._python = python or sys.executable
        self._lock = threading.Lock()
        command = [self._python, "-m", "lightning_dashboard.questions"]
        pipe = subprocess.PIPE
        with explain_start_errors(self._python):
            # In a new session, so that Ctrl-C reaches only the command that asks.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8", start_new_session=True
            )
        try:
            self.names: list[str] = self._exchange({"places": [str(each) for each in places]})["names"]
        except BaseException:
            self.close()
            raise

    def ask(self, view: str, run: str | Sequence[str] = (), **query: Any) -> Any:
        """What a view answers of the run, or the runs, of this name; None and '' in the query are left out.

        Raises:
            SettingError: there is no such rollout, or a filter cannot be used.
            HubError: the run cannot be read, or the process has died.
        """
        given = {"run": run, **{name: value for name, value in query.items() if value is not None and value != ""}}
        found = self._exchange({"view": view, "query": urlencode(given, doseq=True)})
        if "error" in found:
            raise make_error(*found["error"])
        return found["answer"]

    def close(self) -> None:
        """End the process. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it has died with a question that it had not read
                    continue
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> RunViews:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except (OSError, ValueError):  # it has died, or `close` was called
                line = ""
        if not line:
            raise HubError(
                f"the run cannot be read: {self._python} needs lightning-agent-sdk[hub]; name the Python of an "
                "environment that has it: --backend-python"
            )
        answered: dict[str, Any] = json.loads(line)
        return answered
