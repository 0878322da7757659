"""The socket to a hub, with the ZeroMQ context that it lives in: both go when it is closed."""

from __future__ import annotations

import os

import zmq

from lightning_sdk.stream.wire import HubMessage

_SPARE_DESCRIPTORS = 32
_MESSAGE_BYTES = 64 * 1024
"""What a hub has to say to a stream is short."""


class HubSocket:
    """For one thread."""

    def __init__(self, address: str) -> None:
        """Begin to connect; returns at once. OSError if the process has not enough descriptors left for it."""
        require_descriptors()
        self._address = address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket = _connect(self._context, address)
        except zmq.ZMQError:
            self._context.term()
            raise

    def reconnect(self) -> None:
        """Leave the connection for a new one."""
        self._socket.close(linger=0)
        self._socket = _connect(self._context, self._address)

    def send(self, *frames: bytes | memoryview) -> None:
        """Hand a message over. It is copied: sharing the memory would take a further thread, of pyzmq's, which gevent
        makes a greenlet that never yields."""
        self._socket.send_multipart(frames, zmq.NOBLOCK)

    def receive(self) -> HubMessage | None:
        """The next message, None if there is none now; ValueError if it makes no sense."""
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return HubMessage.read(frames)

    def wait(self, seconds: float) -> None:
        """Until there is a message, `seconds` at most."""
        self._socket.poll(int(seconds * 1000))

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()  # cannot hang: there is nothing left to be sent


def _connect(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)  # the stream bounds what is under way
    socket.set(zmq.MAXMSGSIZE, _MESSAGE_BYTES)
    try:
        socket.connect(address)
    except zmq.ZMQError:
        socket.close()
        raise
    return socket


def require_descriptors() -> None:
    """OSError unless a few are left: libzmq aborts the process when there are too few for a new context."""
    taken: list[int] = []
    try:
        for _ in range(_SPARE_DESCRIPTORS):
            taken.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in taken:
            os.close(descriptor)
