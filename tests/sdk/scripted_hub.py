"""A hub that says what a test tells it to: a double, since a real one never misbehaves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import zmq

from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import EventBatch


class ScriptedHub:
    """Welcomes and confirms like a hub, in the test's own thread, while `serve` runs."""

    def __init__(self, address: str = "") -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.bind(address or f"ipc://{tempfile.mkdtemp(prefix='lightning-')}/hub")
        self.address = self.socket.get_string(zmq.LAST_ENDPOINT)
        self.events: list[Any] = []
        self.peer = b""
        self._acked: dict[bytes, int] = {}

    def messages(self, seconds: float) -> Iterator[list[bytes]]:
        """What arrives, while it does."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.socket.poll(int(left * 1000) + 1):
                self.peer, *frames = self.socket.recv_multipart()
                yield frames

    def tell(self, *frames: bytes) -> None:
        """Say something to who spoke last."""
        self.socket.send_multipart([self.peer, *frames])

    def serve(self, until: Callable[[], bool], seconds: float = 60.0) -> None:
        """Take events in until `until` says so; fails the test if it never does."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, "the stream did not get there"
            for frames in self.messages(0.02):
                self.answer(frames)

    def answer(self, frames: list[bytes]) -> None:
        if frames[0] == wire.HELLO:
            client = wire.unpack(frames[1])["client"]
            self.tell(wire.WELCOME, wire.pack({"hub": "scripted", "acked": self._acked.get(client, 0)}))
        elif frames[0] == wire.BATCH:
            batch = EventBatch.read(frames[1], frames[2])
            known = self._acked.get(batch.client, 0)
            if batch.first > known + 1:
                self.tell(wire.WELCOME, wire.pack({"hub": "scripted", "acked": known}))
                return
            self.events += list(batch.events())[max(0, known + 1 - batch.first) :]
            self._acked[batch.client] = max(known, batch.first + batch.count - 1)
            self.tell(wire.ACK, wire.pack({"acked": self._acked[batch.client]}))

    def close(self) -> None:
        self.socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> ScriptedHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
