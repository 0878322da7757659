"""The door: the hub's socket, and who may come in.

On this machine it is a socket in a folder that other users cannot enter. Over TCP everything is encrypted, clients
authenticate the hub by its key, and only clients whose key is on the list are let in (CurveZMQ, RFC 26, with ZAP,
RFC 27).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import zmq
from zmq.utils import z85

from lightning_sdk.errors import HubError, PortInUse
from lightning_sdk.stream import curve, wire

_ZAP, _ZAP_VERSION = "inproc://zeromq.zap.01", b"1.0"
_HANDSHAKE_SECONDS = 10.0
"""After which a peer that has not shown a key is cut off, with what it sent until then."""


class Door:
    """Open from when it is made until `close`. One thread's."""

    def __init__(self, bind: str, secret: str, keys: Iterable[str]) -> None:
        """Bind; `secret`: the hub's own key, `keys`: those of its clients.

        Raises:
            PortInUse: the address is taken.
            HubError: the address cannot be bound, or others could reach the socket.
        """
        self._context = zmq.Context()
        self.gate: zmq.Socket[bytes] | None = None
        """Asks for each peer whether to let it in; None where the folder keeps others out."""
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._path: Path | None = None
        """The socket's file, in a folder that the hub made."""
        self._allowed = frozenset[bytes]()
        try:
            if bind.startswith("ipc://"):
                path = Path(bind.removeprefix("ipc://"))
                _make_private(path.parent)
                self._path = path
            else:
                self._guard(secret, keys)
            self._bind(bind)
        except BaseException:
            self.close(linger=0)
            raise
        self.address: str = self.socket.get_string(zmq.LAST_ENDPOINT)

    def answer(self) -> None:
        """Let a peer in if it has a key. Called when `gate` can be read."""
        assert self.gate is not None
        with contextlib.suppress(zmq.Again):
            _, number, _, _, _, mechanism, *credentials = self.gate.recv_multipart(zmq.NOBLOCK)
            is_known = mechanism == b"CURVE" and len(credentials) == 1 and credentials[0] in self._allowed
            status = (b"200", b"OK") if is_known else (b"400", b"unknown key")
            self.gate.send_multipart([_ZAP_VERSION, number, *status, b"", b""])

    def close(self, linger: int = 500) -> None:
        """Close; messages on their way out have `linger` milliseconds."""
        self.socket.close(linger=linger)
        if self.gate is not None:
            self.gate.close(linger=0)
        self._context.term()
        if self._path is not None:
            with contextlib.suppress(OSError):  # gone already, or not empty
                self._path.unlink(missing_ok=True)
                self._path.parent.rmdir()

    def _guard(self, secret: str, keys: Iterable[str]) -> None:
        curve.require()
        self._allowed = frozenset(z85.decode(curve.credential(key).own.public) for key in keys if key)
        self.gate = self._context.socket(zmq.REP)
        self.gate.bind(_ZAP)
        self.socket.set(zmq.CURVE_SERVER, 1)
        self.socket.set(zmq.CURVE_SECRETKEY, secret.encode())
        self.socket.set(zmq.ZAP_DOMAIN, b"hub")

    def _bind(self, bind: str) -> None:
        self.socket.set(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
        self.socket.set(zmq.HANDSHAKE_IVL, int(_HANDSHAKE_SECONDS * 1000))
        self.socket.set(zmq.ROUTER_MANDATORY, 1)  # sending to a peer that has gone is an error, not a silent drop
        self.socket.set(zmq.RCVHWM, 256)  # what is not read yet waits in the agents, whose window is bounded in bytes
        try:
            self.socket.bind(bind)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                free = bind.rpartition(":")[0] + ":0"
                way = f"choose another port, or bind {free} for a free one"
                raise PortInUse(f"{bind} is in use by another process: {way}") from None
            way = "an address looks like tcp://127.0.0.1:4717"
            if self._path is not None:
                way = "set TMPDIR to a folder of this machine's own file system"
            raise HubError(f"cannot bind {bind!r}: {error}; {way}") from None


def _make_private(folder: Path) -> None:
    """Make the socket's folder. HubError if other users could put a socket into it."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise HubError(f"{folder} is not a folder of this user alone (mode 0700), so no hub listens in it")
