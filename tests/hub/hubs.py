"""A hub process to test, and a small client that speaks the wire format with nothing of the SDK's stream."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zmq

from lightning_hub.storage.log import Log
from lightning_sdk.errors import BY_NAME
from lightning_sdk.stream import curve, wire
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch

KEY = "secret"
HOUR = 3_600_000_000_000


class Hub:
    """`python -m lightning_hub` on a folder; can be killed and started again."""

    def __init__(self, folder: Path, *, path: Path | None = None, **config: Any) -> None:
        nest = Path(tempfile.mkdtemp(prefix="lightning-"))
        self.folder, self._config, self._path = folder, {"bind": f"ipc://{nest}/hub", **config}, path
        self.ready: dict[str, Any] = {}
        self.start()

    def start(self, **config: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(self._path)} if self._path else None
        with (self.folder / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightning_hub"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        message = {"run": str(self.folder), "key": KEY, "lifeline": True, **self._config, **config}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        self.ready = json.loads(self.process.stdout.readline())
        if "address" in self.ready:
            self._config["bind"] = self.ready["address"]  # a hub that comes back has the address that agents know

    @property
    def address(self) -> str:
        return str(self.ready["address"])

    def kill(self) -> None:
        """kill -9. Harmless if it has ended."""
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """Close its standard input, as the death of its parent does; its exit code."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(60)
        self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def log(self) -> str:
        return (self.folder / "hub.log").read_text()


class Client:
    """One DEALER socket."""

    def __init__(self, hub: Hub, *, key: str = KEY, client: bytes | None = None, hello: bool = True) -> None:
        self.id = client or os.urandom(16)
        self._number = 0
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        curve.protect(self._socket, hub.address, key)
        self._socket.connect(hub.address)
        if hello:
            self.send(wire.HELLO, wire.pack({"protocol": wire.PROTOCOL, "client": self.id, "key": key}))

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def receive(self, timeout: float = 60.0) -> tuple[bytes, Any]:
        """The next message as kind and content; fails the test if none comes."""
        assert self._socket.poll(int(timeout * 1000)), "the hub said nothing"
        kind, payload = self._socket.recv_multipart()
        return kind, wire.unpack(payload)

    def expect(self, wanted: bytes) -> Any:
        """The content of the next message of this kind."""
        while True:
            kind, content = self.receive()
            if kind == wanted:
                return content

    def quiet(self, seconds: float) -> bool:
        return not self._socket.poll(int(seconds * 1000))

    def until_quiet(self, seconds: float = 0.3) -> list[tuple[bytes, Any]]:
        """Every message until none comes for so long."""
        found = []
        while not self.quiet(seconds):
            found.append(self.receive())
        return found

    def batch(self, first: int, events: list[Any]) -> None:
        """Send events under the numbers first, first + 1 ..."""
        batch = EventBatch(self.id, first, len(events), b"".join(wire.pack(event) for event in events))
        self.send(wire.BATCH, batch.header(), batch.body)

    def deliver(self, first: int, events: list[Any]) -> None:
        """Send events and wait until they are durable."""
        self.batch(first, events)
        while self.expect(wire.ACK)["acked"] < first + len(events) - 1:
            pass

    def ask(self, method: str, **params: Any) -> Any:
        """The answer to a request; raises what the hub raised."""
        self.post(method, **params)
        _, error, result = self.expect(wire.REPLY)
        if error is not None:
            raise BY_NAME[error[0]](error[1])
        return result

    def post(self, method: str, **params: Any) -> None:
        self._number += 1
        self.send(wire.REQUEST, wire.pack([self._number, method, params]))

    def close(self) -> None:
        self._socket.close(linger=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def span(name: str, key: bytes = NO_ROLLOUT) -> list[Any]:
    """A SPAN event."""
    return [int(Event.SPAN), key, [os.urandom(8).hex(), "", name, "solver", 1, 2, "ok", "", {}]]


def reward(key: bytes, value: Any, role: str = "", name: str = "final") -> list[Any]:
    return [int(Event.REWARD), key, value, role, name, "", time.time_ns()]


def begin(key: bytes, rollout: str, task: dict[str, Any] | None = None) -> list[Any]:
    return [int(Event.BEGIN), key, rollout, task or {}, time.time_ns()]


def end(key: bytes, status: str = "ok", error: str = "", output: str = "") -> list[Any]:
    return [int(Event.END), key, status, error, time.time_ns(), output]


def meta(role: str = "solver", *, trainable: bool = True, streamed: bool = False, **changes: Any) -> list[Any]:
    """CallMeta as on the wire."""
    values = {
        "id": os.urandom(8).hex(),
        "parent": "",
        "role": role,
        "trainable": trainable,
        "started_ns": time.time_ns(),
        "ended_ns": time.time_ns(),
        "status": "ok",
        "error": "",
        "http_status": 200,
        "streamed": streamed,
        "path": "/v1/chat/completions",
        "framework": "openai",
    }
    return list({**values, **changes}.values())


def reply(content: str = "4", ids: tuple[int, ...] = (7, 8), **changes: Any) -> dict[str, Any]:
    """A chat completion as vLLM answers it with `return_token_ids` and `logprobs`."""
    answer: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "spark",
        "prompt_token_ids": [1, 2, 3],
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
                "token_ids": list(ids),
                "logprobs": {"content": [{"token": "x", "logprob": -0.5} for _ in ids]},
                "weight_versions": [[0, len(ids)]],
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": len(ids)},
    }
    return {**answer, **changes}


def raw_call(key: bytes, answer: dict[str, Any] | bytes, **changes: Any) -> list[Any]:
    """A REPLY event."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    request = json.dumps({"model": "spark", "messages": [], "temperature": 1.0}).encode()
    return [int(Event.REPLY), key, meta(**changes), request, body]


def read_log(folder: Path) -> list[list[Any]]:
    """Every event in the log of a hub that does not run."""
    log = Log(folder / "spans")
    events = [event for _, batch in log.recover(0) for event in batch.events()]
    log.close()
    return events


def names(folder: Path) -> list[str]:
    """Names of all logged spans."""
    return [event[2][2] for event in read_log(folder)]


def rollouts(folder: Path) -> list[tuple[Any, ...]]:
    """id, status, error, output of all rollouts."""
    with sqlite3.connect(folder / "hub.sqlite") as database:
        found = database.execute("SELECT id, status, error, output FROM rollouts ORDER BY started").fetchall()
    database.close()
    return found
