"""The hub's side of a backend in a child process: starts it, talks to it, watches it and stops it."""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Batch, Endpoint, Row, Update
from lightning_process.transport import pack_batch, pack_question, unpack_scores
from lightning_sdk.errors import BY_NAME, BackendDied, LightningError, SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.stream.wire import pack, unpack
from lightning_sdk.system import addresses
from lightning_sdk.system.clock import Clock

#: Time limits for the child: to load a model (including a download), to update or score, to save or load, to end.
_START_SECONDS, _UPDATE_SECONDS, _FILES_SECONDS, _END_SECONDS = 1800.0, 3600.0, 600.0, 20.0
_POLL_SECONDS = 0.5
"""Time between checks that the child is alive."""
LOG = "backend.log"


class Child:
    """A backend in a separate process, as `lightning_hub.backend.Backend` and `Scoring`.

    Its program is a module that calls `lightning_process.program.run`.
    """

    def __init__(
        self, name: str, module: str, settings: Settings, folder: Path, environment: Mapping[str, str]
    ) -> None:
        """Start `python -m module`, with its log in the run's folder, and wait until it serves.

        Raises the LightningError that the child reports, such as ModelError; BackendDied if it ends before it serves.
        """
        self._name, self._log = f"the {name} backend", folder / LOG
        self._extra = "train" if name == "embedded" else name.lower()
        key, self._learner_key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        keys = {"engine": key, "learner": self._learner_key}
        config = {
            "settings": settings.as_dict(),
            "keys": keys,
            "folder": str(folder.resolve()),
            "begun": time.monotonic(),
        }
        with self._log.open("ab") as log:
            # In a new session: the hub handles Ctrl-C, and the child ends when its stdin closes.
            self._child = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env={**environment, **os.environ},  # what the user set wins
            )
        try:
            ready = self._first_line(json.dumps(config))
        except BaseException:
            self.close()
            raise
        self._facts: dict[str, object] = ready["facts"]
        self._learner = int(ready["learner"])
        """Port of the learner."""
        url = f"http://{addresses.literal(str(ready['host']))}:{int(ready['port'])}/v1"
        self.endpoint = Endpoint(url, str(ready["model"]), key, divisible=True)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def facts(self) -> dict[str, object]:
        return dict(self._facts)

    def update(self, batch: Batch) -> Update:
        version, metrics = self._ask("update", pack_batch(batch), _UPDATE_SECONDS)
        return Update(version, metrics)

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """As `lightning_hub.backend.Scoring`."""
        return unpack_scores(self._ask("score", pack_question(rows, what), _UPDATE_SECONDS)) if rows else []

    def save(self, folder: Path) -> None:
        self._ask("save", pack({"folder": str(folder.resolve())}), _FILES_SECONDS)

    def load(self, folder: Path) -> int:
        return int(self._ask("load", pack({"folder": str(folder.resolve())}), _FILES_SECONDS))

    def check(self) -> None:
        if self._child.poll() is not None:
            raise BackendDied(self._describe_end("while it served"))

    def close(self) -> None:
        """Ask the child to end, then terminate it, then kill it. Idempotent."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                _close_quietly(pipe)
        for force in (None, self._child.terminate, self._child.kill):
            if force is not None:
                force()
            try:
                self._child.wait(_END_SECONDS)
                return
            except subprocess.TimeoutExpired:
                continue

    def _first_line(self, config: str) -> dict[str, Any]:
        """What the child reports once it is ready."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None and stdout is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
        reader.start()
        try:
            stdin.write(config.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._not_started() from None
        clock = Clock()
        while not lines and self._child.poll() is None:
            if clock.read() > _START_SECONDS:
                raise LightningError(f"{self._name} was not ready after {_START_SECONDS:.0f} s; see {self._log}")
            reader.join(_POLL_SECONDS)
        reader.join(_POLL_SECONDS)  # what it said before it ended
        if not lines or not lines[0]:
            raise self._not_started()
        ready: dict[str, Any] = json.loads(lines[0])
        if "error" in ready:
            raise _error(*ready["error"])
        return ready

    def _ask(self, what: str, body: bytes, seconds: float) -> Any:
        """The child's answer to a POST to /learner/`what`."""
        headers = {"Authorization": f"Bearer {self._learner_key}", "Content-Type": "application/msgpack"}
        connection = HTTPConnection(addresses.LOOPBACK, self._learner, timeout=seconds)
        try:
            connection.request("POST", f"/learner/{what}", body, headers)
            self._await_answer(connection.sock, seconds)
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError:
            raise LightningError(f"{self._name} took over {seconds:.0f} s: {what}; see {self._log}") from None
        except (OSError, HTTPException) as error:
            raise BackendDied(self._describe_end(f"during {what} ({type(error).__name__})")) from None
        finally:
            connection.close()
        if response.getheader("Content-Type") != "application/msgpack":
            raise LightningError(f"{self._name} answered {what} with {response.status}: {answer[:300]!r}")
        if response.status != 200:
            raise _error(*unpack(answer))
        return unpack(answer)

    def _await_answer(self, connection: socket.socket, seconds: float) -> None:
        """Wait until the answer arrives, or the connection ends because the child did. TimeoutError after `seconds`,
        not counting time in which this process was suspended."""
        clock = Clock()
        while not select.select([connection], [], [], _POLL_SECONDS)[0]:
            if clock.read() > seconds:
                raise TimeoutError

    def _not_started(self) -> LightningError:
        """Why the child ended before it was ready. A missing package is reported without a traceback."""
        message = self._describe_end("while it started")
        missing = re.findall(r"^  (?:ModuleNotFoundError|ImportError): (.*)$", message, re.MULTILINE)
        if not missing:
            return BackendDied(message)
        return SettingError(
            f"{self._name} cannot be imported by {sys.executable} ({missing[-1]}): install what it needs there, "
            f"pip install 'lightning-agent-sdk[{self._extra}]', or name the Python of an environment that has it: "
            f"--backend-python. The full error is in {self._log}"
        )

    def _describe_end(self, when: str) -> str:
        """Describe a child that ended or no longer answers, with the last lines of its log."""
        deadline = time.monotonic() + 5.0
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        tail = "\n  ".join(lines) or "(empty)"
        end = _describe_exit(self._child.poll())
        return f"{self._name}'s process {self.pid} {end} {when}; end of {self._log}:\n  {tail}"


def _describe_exit(code: int | None) -> str:
    """Describe how a process with this exit code ended."""
    if code is None:
        return "no longer answers"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed with {name}{', as the kernel does when memory runs out,' if name == 'SIGKILL' else ''}"


def _error(name: str, message: str) -> LightningError:
    return BY_NAME.get(name, LightningError)(message)


def _close_quietly(pipe: Any) -> None:
    """Close a pipe whose other end may be gone."""
    with suppress(BrokenPipeError):
        pipe.close()
