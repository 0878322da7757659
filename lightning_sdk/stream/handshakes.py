"""Handshakes: whether the process that listens at an address refuses a socket's key, which CurveZMQ itself does not
report."""

from __future__ import annotations

import contextlib

import zmq
from zmq.utils.monitor import recv_monitor_message

from lightning_sdk.stream import curve

_ENOUGH = 3
"""Failures in a row that mean a wrong key: a hub with another key just closes the connection, but so does one that is
stopping."""
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
"""The hub refused the key, or does not use encryption; ZeroMQ does not try again."""
_WRONG = (
    "wrong key: the process that listens there does not accept it. The key (LIGHTNING_KEY, --key) belongs to another "
    "training, or that process is not this hub"
)
_MISSING = (
    "wrong key: no key was given. Set LIGHTNING_KEY, or pass the key (key=..., --key). The first process that reads "
    "LIGHTNING_KEY removes it from the environment, so pass the key on to processes that it starts"
)


def describe_refusal(key: str) -> str:
    """Why a hub refused this key, and what to do."""
    return _WRONG if key else _MISSING


class Handshakes:
    """Those of one socket, from before it connects until `close`."""

    def __init__(self, socket: zmq.Socket[bytes], address: str) -> None:
        self._socket, self._failures = socket, 0
        self._monitor: zmq.Socket[bytes] | None = None
        if curve.is_used(address):
            socket.set(zmq.HANDSHAKE_IVL, 0)  # a hub that stands still does not refuse anybody
            events = _REFUSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._monitor = socket.get_monitor_socket(events)

    def are_refused(self) -> bool:
        """Whether the key was refused, so far; does not wait."""
        with contextlib.suppress(zmq.Again):
            while self._monitor is not None and self._failures < _ENOUGH:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
                if event & _REFUSED:
                    self._failures = _ENOUGH
                else:
                    self._failures = 0 if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else self._failures + 1
        return self._failures >= _ENOUGH

    def close(self) -> None:
        """Before the socket."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
