"""A hub's process, from its start to its end."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from io import BufferedWriter
from pathlib import Path
from typing import Any

from lightning_sdk.errors import BY_NAME, HubError
from lightning_sdk.failures import disk
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.system.folders import refuse_links

log = logging.getLogger("lightning_sdk")

_STARTUP_SECONDS = 60.0
"""After this time a message says that the start takes long."""
_STILL_STARTING = "lightning: the hub (process %d) has been starting for %.0f s; %s says what it does"
_LONGEST_PATH_BYTES = 95


class HubProcess:
    """A hub that we started, and therefore stop. It ends by itself when this process dies."""

    def __init__(
        self,
        run: Path,
        *,
        python: str | None = None,
        bind: str = "",
        keys: HubKeys | None = None,
        guests_run: bool = True,
    ) -> None:
        """Start a hub on the folder `run` and wait until it listens.

        Args:
            run: The run's folder; its log goes to hub.log there.
            python: Interpreter of the environment that holds the backend; this one if not given.
            bind: tcp://HOST:PORT, port 0 picks a free one. By default a socket in a folder of this user alone.
            keys: Made up if not given.
            guests_run: Its guests are runners; else they are agents that are recorded.

        Raises:
            HubError: it did not start; the message ends with what it printed.
            DiskError: there is no room in the folder.
            PortInUse: the port of `bind` is taken.
            SettingError: something in the folder leads out of it.
        """
        refuse_links(run)
        self.keys = keys or HubKeys.make()
        self.python = python or sys.executable
        self._log = run / "hub.log"
        self._socket_folder = None if bind else _make_socket_folder()
        with self._open_log() as log:
            try:
                self._process = subprocess.Popen(
                    [self.python, "-m", "lightning_hub"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                self._tidy()
                raise HubError(f"cannot run {self.python}: {error}; name the backend environment's python") from None
        ready = self._handshake(
            {
                "run": str(run),
                "bind": bind or f"ipc://{self._socket_folder}/hub",
                "secret": self.keys.secret,
                "key": self.keys.operator,
                "guest_key": self.keys.guest,
                "guests_run": guests_run,
                "lifeline": True,
            }
        )
        self.address: str = ready["address"]
        self.id: str = ready["hub"]

    @property
    def key(self) -> str:
        """The operator's key, which opens everything."""
        return self.keys.operator

    @property
    def pid(self) -> int:
        return self._process.pid

    def _open_log(self) -> BufferedWriter:
        try:
            return open(self._log, "ab", opener=_private)
        except OSError as error:
            told = disk.trouble(error, self._log.parent)
            raise told or HubError(f"cannot write {self._log}: {error.strerror or error}") from None

    def _handshake(self, config: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # However long it reads a log after a crash: the end of its process ends this too.
        slow = threading.Timer(
            _STARTUP_SECONDS, log.warning, (_STILL_STARTING, self._process.pid, _STARTUP_SECONDS, self._log)
        )
        slow.daemon = True
        slow.start()
        try:
            self._process.stdin.write(json.dumps(config).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            slow.cancel()
        ready: dict[str, Any] = json.loads(line) if line.strip() else {}
        if "address" in ready:
            return ready
        self.stop(0.0)
        if "error" in ready:
            name, text = ready["error"]
            raise BY_NAME.get(name, HubError)(text)
        tail = self.log_tail()
        if missing := re.findall(r"No module named '([^']+)'", tail):
            raise HubError(
                f"the hub did not start: {self.python} has no {missing[-1]}; install the backend there, "
                "pip install 'lightning-agent-sdk[train]', or name the Python of an environment that has it: "
                "--backend-python"
            )
        raise HubError(f"the hub did not start with {self.python}. The end of {self._log}:\n{tail}")

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that the hub logged."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self, timeout: float = 15.0) -> None:
        """End the hub: ask by closing its input, wait, then make it. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        for wait, act in ((timeout, self._process.terminate), (5.0, self._process.kill), (5.0, None)):
            try:
                self._process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                if act is not None:
                    act()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the socket's folder, which the hub does itself unless it is killed."""
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)


def _make_socket_folder() -> Path:
    """A new folder of this user alone, with a path short enough for a socket in it: 103 bytes at most on macOS."""
    folder = Path(tempfile.mkdtemp(prefix="lightning-"))
    if len(os.fsencode(folder)) <= _LONGEST_PATH_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="lightning-", dir="/tmp"))


def _private(path: str, flags: int) -> int:
    """Opens a file that only this user reads."""
    return os.open(path, flags, 0o600)
