"""The hub from the agent's process: a process to start and stop, and requests to it."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from lightning_sdk.errors import BY_NAME, HubError, HubGone, HubRefused, LightningError
from lightning_sdk.failures import disk
from lightning_sdk.hub.keys import HubKeys
from lightning_sdk.stream import curve, wire
from lightning_sdk.stream.handshakes import Handshakes, describe_refusal
from lightning_sdk.system import native_threads
from lightning_sdk.system.clock import Clock
from lightning_sdk.system.folders import refuse_links

log = logging.getLogger("lightning_sdk")

_STARTUP_SECONDS = 60.0
"""After this time a message says that the start takes long."""
_ANSWER_SECONDS = 20.0
"""How long a hub may take to answer, in addition to the wait that was asked for."""
_STILL_STARTING = "lightning: the hub (process %d) has been starting for %.0f s; %s says what it does"
_POLL_SECONDS = 0.5
"""How often a client checks whether the hub is alive."""
_GREENLET_SECONDS = 0.01
"""How often it is looked for a message where gevent or eventlet have replaced threads."""
_NO_ANSWER = (
    "lightning: the hub at %s has not answered %r for %.0f s, but its process has not ended: this waits for it, until "
    "Ctrl-C. If it was stopped, kill -CONT lets it go on"
)
_LONGEST_PATH_BYTES = 95


class HubClient:
    """Asks a hub. One thread at a time."""

    def __init__(
        self, address: str, key: str, alive: Callable[[], bool] = lambda: True, seconds: float = _ANSWER_SECONDS
    ) -> None:
        """`alive` tells whether it makes sense to wait on, as of a hub that one has started oneself whether it still
        runs; `seconds`: it answers in these, in which this process runs too, or is gone."""
        self.address, self._key, self._alive, self._seconds = address, key, alive, seconds
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
        curve.protect(self._socket, address, key)
        self._handshakes = Handshakes(self._socket, address)
        self._socket.connect(address)
        self._hello = wire.hello(os.urandom(16), key)
        self._socket.send_multipart([wire.HELLO, self._hello])

    def ask(self, method: str, *, wait: float = 0.0, **params: Any) -> Any:
        """The hub's answer to `method`; `wait` seconds are passed on and added to the time limit.

        Raises:
            HubGone: no answer in time.
            HubRefused: the key or the protocol is wrong.
            LightningError: what the hub raised, as the same class.
        """
        if wait:
            params["wait"] = wait
        with self._lock:
            number = next(self._numbers)
            request = wire.pack([number, method, params])
            if len(request) > wire.MAX_MESSAGE_BYTES:
                raise HubError(
                    f"the request {method!r} has {len(request):,} bytes, and a hub reads {wire.MAX_MESSAGE_BYTES:,} at "
                    "most: give less data"
                )
            self._socket.send_multipart([wire.REQUEST, request])
            return self._answer(number, method, request, wait)

    def _answer(self, number: int, method: str, request: bytes, wait: float) -> Any:
        # A standstill counts as one look: the request may not even have left before it.
        clock, told = Clock(_POLL_SECONDS), math.isfinite(self._seconds)
        while True:
            alive, passed = self._alive(), clock.read()
            if not self._has_message(_POLL_SECONDS):
                if self._handshakes.are_refused():
                    raise HubRefused(f"the hub at {self.address} refused: {describe_refusal(self._key)}")
                if not alive or passed > wait + self._seconds:
                    break
                if not told and passed > wait + _ANSWER_SECONDS:
                    told = True
                    log.warning(_NO_ANSWER, self.address, method, passed)
                continue
            kind, payload = self._socket.recv_multipart()[:2]
            message = wire.unpack(payload)
            if kind == wire.HELLO:  # the hub was restarted and does not know us
                self._socket.send_multipart([wire.HELLO, self._hello])
                self._socket.send_multipart([wire.REQUEST, request])
            if kind == wire.REFUSED:
                raise HubRefused(f"the hub at {self.address} refused: {message['reason']}")
            if kind == wire.REPLY and message[0] == number:
                if message[1] is not None:
                    name, text = message[1]
                    raise BY_NAME.get(name, LightningError)(text)
                return message[2]
        if not self._alive():
            raise HubGone(f"the hub at {self.address} did not answer {method!r}: its process has ended")
        raise HubGone(
            f"the hub at {self.address} did not answer {method!r} in {self._seconds:.0f} s: is its process running?"
        )

    def _has_message(self, seconds: float) -> bool:
        """Whether one came within `seconds`."""
        if not native_threads.are_replaced():
            return bool(self._socket.poll(int(seconds * 1000)))
        clock = Clock()
        while not self._socket.poll(0):
            if clock.read() > seconds:
                return False
            time.sleep(_GREENLET_SECONDS)  # lets other greenlets run, which a wait inside ZeroMQ would not
        return True

    def close(self) -> None:
        self._handshakes.close()
        self._socket.close(linger=0)

    def __enter__(self) -> HubClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
