"""Raw replies decoded by worker processes: in order, once, through the death of a worker and of the hub."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_sdk.stream import wire
from lightning_sdk.stream.stream import Stream
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from lightning_sdk.trace.call import Call
from tests.hub.hubs import Client, Hub, raw_call, read_log, reply, span
from tests.processes import wait_until_ended


def workers(hub: Hub) -> list[int]:
    """Process ids of a hub's workers, not of the tracker that Python starts beside them."""
    children = Path(f"/proc/{hub.process.pid}/task").glob("*/children")
    found = [int(pid) for each in children for pid in each.read_text().split()]
    return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def text_of(event: list[Any]) -> str:
    """The text of a logged call, or the name of a span."""
    if event[0] == Event.SPAN:
        return str(event[2][2])
    return Call.unpack(event[2]).choices[0].message.decode()


def test_workers_keep_the_order(start: Callable[..., Hub]) -> None:
    """Raw and packed events of two clients lie in the log in the order of each, raw ones decoded."""
    hub = start(workers=2)
    with Client(hub) as one, Client(hub) as two:
        for number in range(1, 40, 2):
            for client in (one, two):
                name = "one" if client is one else "two"
                client.batch(number, [raw_call(NO_ROLLOUT, reply(f"{name}-{number:03}"))])
                client.batch(number + 1, [span(f"{name}-{number + 1:03}")])
        for client in (one, two):
            while client.expect(wire.ACK)["acked"] < 40:
                pass
        assert len(workers(hub)) == 2
        assert one.ask("status")["undecodable"] == 0
    hub.stop()
    events = [text_of(event) for event in read_log(hub.folder)]
    for name in ("one", "two"):
        mine = [text for text in events if name in text]
        assert [int(text.partition(f"{name}-")[2][:3]) for text in mine] == list(range(1, 41))


def test_a_killed_worker_costs_nothing(start: Callable[..., Hub]) -> None:
    """kill -9 of the workers: the hub says so, decodes by itself and loses nothing."""
    hub = start(workers=2)
    with Client(hub) as client:
        client.deliver(1, [raw_call(NO_ROLLOUT, reply("first"))])
        for pid in workers(hub):
            os.kill(pid, signal.SIGKILL)
        client.deliver(2, [raw_call(NO_ROLLOUT, reply("second"))])
        client.deliver(3, [raw_call(NO_ROLLOUT, reply("third"))])
    hub.stop()
    texts = [text_of(event) for event in read_log(hub.folder)]
    assert [word in text for word, text in zip(("first", "second", "third"), texts, strict=True)] == [True] * 3
    assert "without worker processes" in hub.log()


def test_workers_end_with_the_hub(start: Callable[..., Hub]) -> None:
    """kill -9 of the hub, and a graceful end: no worker is left."""
    for end in (Hub.kill, Hub.stop):
        hub = start(end.__name__, workers=2)
        with Client(hub) as client:
            client.deliver(1, [raw_call(NO_ROLLOUT, reply())])
        pids = workers(hub)
        assert pids
        end(hub)
        wait_until_ended(*pids)


def test_kill_9_of_a_hub_with_workers_loses_and_doubles_nothing(start: Callable[..., Hub]) -> None:
    """The SDK's stream sends raw replies while the hub is killed three times; each is in the log once."""
    hub = start(workers=2)
    stream, sent, done = Stream(hub.address, "secret"), 0, threading.Event()

    def send() -> None:
        nonlocal sent
        while not done.is_set():
            stream.put(tuple(raw_call(NO_ROLLOUT, reply(f"number {sent}"))), 600)
            sent += 1
            time.sleep(0.0005)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(3):
        time.sleep(0.5)
        hub.kill()
        hub.start()
    done.set()
    sender.join()
    assert stream.flush(60)
    stream.close()
    hub.stop()
    numbers = [int(text_of(event).partition("number ")[2].partition('"')[0]) for event in read_log(hub.folder)]
    assert numbers == list(range(sent))
