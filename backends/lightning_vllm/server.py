"""One vLLM server: its process group, its log, its control endpoints, and its end."""

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
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lightning_sdk.errors import LightningError
from lightning_sdk.system.clock import Clock
from lightning_vllm.health import is_healthy
from lightning_vllm.pool import ServerAddress

_HOST = "127.0.0.1"
#: Time between checks of a server that starts, for its answer to one, and for it to end.
_POLL_SECONDS, _HEALTH_SECONDS, _END_SECONDS = 0.25, 5.0, 10.0
#: Number of checks in a row that a server fails if its engine has ended.
_FAILED_CHECKS = 4
#: Number of log lines that an error shows.
_TAIL_LINES = 15
#: The last line of a traceback, plain or behind the logger's prefix.
_REASON = re.compile(r"(?:^|\] )([\w.]*(?:Error|Exception): .+)$")


class ServerGone(LightningError):
    """The server's process has ended or does not answer. The message includes the end of its log."""


class VllmServer:
    """Starts on construction; `wait` until it is ready. Its process group ends with this process, even if killed."""

    def __init__(
        self,
        log: Path,
        arguments: Callable[[int], list[str]],
        environment: Mapping[str, str],
        required: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`arguments`: the command line for a port; `environment`: variables that the user's override; `required`:
        variables for a key that the user's do not override."""
        self.log = log
        self._key, self._port = secrets.token_urlsafe(24), _free_port()
        self._ended = False
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lightning_vllm.serve", *arguments(self._port)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,  # the hub handles Ctrl-C
                env={**environment, **os.environ, **required(self._key)},
            )

    @property
    def pid(self) -> int:
        """Process id of its group's leader."""
        return self._process.pid

    @property
    def upstream(self) -> ServerAddress:
        return ServerAddress(f"http://{_HOST}:{self._port}/v1", self._key)

    def alive(self) -> bool:
        return self._process.poll() is None

    def join(self) -> None:
        """Wait until its process ends."""
        self._process.wait()

    def wait(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until it is ready, or `stop` returns True. ServerGone if it ends, or takes longer than `seconds`."""
        clock = Clock(2 * _HEALTH_SECONDS)
        while self.alive():
            if stop() or is_healthy(self.upstream, _HEALTH_SECONDS):
                return
            if clock.read() > seconds:
                raise ServerGone(self._describe(f"was not ready after {seconds:.0f} s"))
            time.sleep(_POLL_SECONDS)
        raise ServerGone(self._describe("ended while it started"))

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float = 600.0, **query: object) -> Any:
        """The answer of a control endpoint, as plain data. ServerGone if there is none, LightningError if it failed."""
        place = f"{path}?{urlencode(query)}" if query else path
        connection = HTTPConnection(_HOST, self._port, timeout=seconds)
        try:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request(method, place, json.dumps(body) if body is not None else None, headers)
            self._wait_for_answer(connection.sock, seconds)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException) as error:
            raise ServerGone(self._describe(f"did not answer {path} ({type(error).__name__})")) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise LightningError(self._describe(f"answered {path} with {response.status}: {answer[:300]!r}"))
        return json.loads(answer) if answer else None

    def _wait_for_answer(self, connection: socket.socket, seconds: float) -> None:
        """Wait until there is something to read. OSError after `seconds`, or if the engine has ended: vLLM does not
        answer what its engine had not answered by then."""
        clock = Clock(2 * _HEALTH_SECONDS)
        failed = 0
        while not select.select([connection], [], [], _POLL_SECONDS)[0]:
            if clock.read() > seconds:
                raise TimeoutError
            failed = 0 if is_healthy(self.upstream, _HEALTH_SECONDS) else failed + 1
            if failed == _FAILED_CHECKS:
                raise ConnectionError

    def metrics(self) -> str:
        """vLLM's metrics, in Prometheus' text format."""
        request = urllib.request.Request(f"http://{_HOST}:{self._port}/metrics")
        request.add_header("Authorization", f"Bearer {self._key}")
        # Without proxies, which would see the key.
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with straight.open(request, timeout=_HEALTH_SECONDS) as reply:
            return str(reply.read().decode())

    def close(self) -> None:
        """End the whole process group. Idempotent."""
        if self._ended:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        # The leader may have been killed while the rest of the group still runs.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._ended = True

    def _describe(self, what: str) -> str:
        """The message of an error, with the end of this process's log."""
        with self.log.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode(errors="replace").splitlines()
        tail = "\n  ".join(lines[-_TAIL_LINES:]) or "(empty)"
        # Each parent of the process that failed adds another traceback: the first one has the reason.
        first = next((found[1] for line in lines if (found := _REASON.search(line))), "")
        because = f" ({first})" if first else ""
        return f"the vLLM server {self.pid} {what}{because}; end of {self.log}:\n  {tail}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
