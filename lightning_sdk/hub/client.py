"""The hub from the agent's process: requests to it, and its answers."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import zmq

from lightning_sdk.errors import HubError, HubGone, HubRefused, make_error
from lightning_sdk.stream import curve, wire
from lightning_sdk.stream.handshakes import Handshakes, describe_refusal
from lightning_sdk.system import native_threads
from lightning_sdk.system.clock import Clock

log = logging.getLogger("lightning_sdk")

_ANSWER_SECONDS = 20.0
"""How long a hub may take to answer, in addition to the wait that was asked for."""
_POLL_SECONDS = 0.5
"""How often a client checks whether the hub is alive."""
_GREENLET_SECONDS = 0.01
"""How often it is looked for a message where gevent or eventlet have replaced threads."""
_NO_ANSWER = (
    "lightning: the hub at %s has not answered %r for %.0f s, but its process has not ended: this waits for it, until "
    "Ctrl-C. If it was stopped, kill -CONT lets it go on"
)


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
                    raise make_error(*message[1])
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
