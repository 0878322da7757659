"""The socket to a hub, with the ZeroMQ context that it lives in: both go when it is closed."""

from __future__ import annotations

import os

import zmq

from lightning_sdk.stream import curve
from lightning_sdk.stream.handshakes import Handshakes
from lightning_sdk.stream.wire import HubMessage

_SPARE_DESCRIPTORS = 32
_MESSAGE_BYTES = 64 * 1024
"""What a hub has to say to a stream is short."""


class HubSocket:
    """For one thread."""

    def __init__(self, address: str, key: str) -> None:
        """Begin to connect; returns at once. OSError if the process has not enough descriptors left for it."""
        require_descriptors()
        self._address, self._key = address, key
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket, self._handshakes = _connect(self._context, address, key)
        except zmq.ZMQError:
            self._context.term()
            raise

    def reconnect(self) -> None:
        """Leave the connection for a new one."""
        self._handshakes.close()
        self._socket.close(linger=0)
        self._socket, self._handshakes = _connect(self._context, self._address, self._key)

    def is_refused(self) -> bool:
        """Whether what listens there does not take the key."""
        return self._handshakes.are_refused()

    def send(self, *frames: bytes | memoryview) -> None:
        """Hand a message over. It is copied: sharing the memory would take a further thread, of pyzmq's, which gevent
        makes a greenlet that never yields."""
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def receive(self) -> HubMessage | None:
        """The next message, None if there is none now; ValueError if it is malformed."""
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return HubMessage.read(frames)

    def wait(self, seconds: float) -> None:
        """Until there is a message, `seconds` at most."""
        self._socket.poll(int(seconds * 1000))

    def close(self) -> None:
        self._handshakes.close()
        self._socket.close(linger=0)
        self._context.term()  # cannot hang: there is nothing left to be sent


def _connect(context: zmq.Context[zmq.Socket[bytes]], address: str, key: str) -> tuple[zmq.Socket[bytes], Handshakes]:
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)  # the stream bounds what is under way
    socket.set(zmq.MAXMSGSIZE, _MESSAGE_BYTES)
    curve.protect(socket, address, key)
    handshakes = Handshakes(socket, address)
    try:
        socket.connect(address)
    except zmq.ZMQError:
        handshakes.close()
        socket.close()
        raise
    return socket, handshakes


def require_descriptors() -> None:
    """OSError unless a few are left: libzmq aborts the process when there are too few for a new context."""
    taken: list[int] = []
    try:
        for _ in range(_SPARE_DESCRIPTORS):
            taken.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in taken:
            os.close(descriptor)
