"""The hub through kill -9, a torn log, a lost database and a full disk: nothing confirmed is lost or doubled."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_hub.storage.log import Log
from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import Event, EventBatch
from tests.hub.hubs import Client, Hub, begin, end, names, raw_call, read_log, reply, reward, rollouts, span


def test_kill_9_under_load_loses_and_doubles_nothing(start: Callable[..., Hub]) -> None:
    """The hub is killed five times while events, raw replies and rollouts stream in; each counts exactly once."""
    hub, sent, per_batch, total = start(), 0, 20, 6000
    client_id, kills = os.urandom(16), [total * n // 6 for n in range(1, 6)]
    keys = [os.urandom(16) for _ in range(total // 100)]

    def event(number: int) -> list[Any]:
        key, place = keys[(number - 1) // 100], (number - 1) % 100
        if place == 0:
            return begin(key, f"rollout-{(number - 1) // 100:03d}")
        if place == 98:
            return reward(key, 1.0)
        if place == 99:
            return end(key)
        return raw_call(key, reply(str(number)), id=f"{number:016d}") if place % 10 == 5 else span(str(number), key)

    while sent < total:
        with Client(hub, client=client_id) as client:
            sent = client.expect(wire.WELCOME)["acked"]
            next_kill = kills.pop(0) if kills else total + 1
            for first in range(sent + 1, total + 1, per_batch):
                client.batch(first, [event(number) for number in range(first, min(first + per_batch, total + 1))])
                if first >= next_kill:
                    break
            if next_kill > total:
                while sent < total:
                    sent = client.expect(wire.ACK)["acked"]
                told = client.ask("status")
                break
            hub.kill()
            hub.start()
    assert not kills
    assert (told["events"], told["rollouts"]) == (total, {"ok": len(keys)})
    hub.stop()
    events = read_log(hub.folder)
    assert len(events) == total
    spans = [event[2][2] for event in events if event[0] == Event.SPAN]
    calls = [event[2][0][0] for event in events if event[0] == Event.CALL]
    numbers = [n for n in range(1, total + 1) if 0 < (n - 1) % 100 < 98]
    assert spans == [str(n) for n in numbers if (n - 1) % 10 != 5]
    assert calls == [f"{n:016d}" for n in numbers if (n - 1) % 10 == 5]
    indexed = index_of(hub.folder)
    assert {key: len(found) for key, found in indexed.items()} == dict.fromkeys(keys, 100)


def index_of(folder: Path) -> dict[bytes, list[list[Any]]]:
    """Rollout key -> the events that the index names, read from the log."""
    found: dict[bytes, list[list[Any]]] = {}
    log = Log(folder / "spans")
    with sqlite3.connect(folder / "hub.sqlite") as database:
        rows = database.execute("SELECT key, positions FROM extents ORDER BY rowid").fetchall()
    database.close()
    for key, packed in rows:
        pairs = memoryview(packed).cast("Q")
        events = [wire.unpack(log.read(pairs[i], pairs[i + 1])) for i in range(0, len(pairs), 2)]
        assert all(event[1] == key for event in events)
        found.setdefault(key, []).extend(events)
    log.close()
    return found


def test_a_rollout_that_spans_a_kill(start: Callable[..., Hub]) -> None:
    """A rollout under way when the hub is killed is whole in the end, its refused reward included."""
    hub, key = start(), os.urandom(16)
    with Client(hub) as client:
        client.deliver(1, [begin(key, "r1"), span("a", key), reward(key, float("nan"), name="early")])
        time.sleep(0.7)  # long enough for the index to be saved, so that the kill falls between
        client.deliver(4, [span("b", key)])
    hub.kill()
    hub.start()
    with Client(hub, client=client.id) as client:
        client.deliver(5, [span("c", key), end(key)])
    hub.stop()
    [(_, status, error, _)] = rollouts(hub.folder)
    assert (status, "'early'" in error) == ("reward_error", True)
    kinds = [event[0] for event in index_of(hub.folder)[key]]
    assert kinds == [Event.BEGIN, Event.SPAN, Event.REWARD, Event.SPAN, Event.SPAN, Event.END]


def test_a_torn_tail_is_sent_again(start: Callable[..., Hub]) -> None:
    """Half a record at the end of the log, as a crash leaves it, is cut; the client sends what was not acknowledged."""
    hub = start()
    with Client(hub) as client:
        client.deliver(1, [span("a")])
    hub.kill()
    torn = EventBatch(client.id, 2, 1, wire.pack(span("b")))
    with (hub.folder / "spans" / "000001.log").open("ab") as file:
        file.write((torn.header() + torn.body)[:-3])
    hub.start()
    with Client(hub, client=client.id) as client:
        assert client.expect(wire.WELCOME)["acked"] == 1
        client.deliver(2, [span("b")])
    hub.stop()
    assert names(hub.folder) == ["a", "b"]
    assert "cut a torn tail" in hub.log()


def test_the_database_can_be_rebuilt_from_the_log(start: Callable[..., Hub]) -> None:
    """The log is the truth: without hub.sqlite, rollouts and client positions come back."""
    hub, key = start(), os.urandom(16)
    with Client(hub) as client:
        client.deliver(1, [begin(key, "r1"), span("a", key), reward(key, 1.0), end(key)])
    hub.stop()
    for path in hub.folder.glob("hub.sqlite*"):
        path.unlink()
    hub.start()
    with Client(hub, client=client.id) as client:
        assert client.expect(wire.WELCOME)["acked"] == 4
        told = client.ask("status")
    assert (told["events"], told["rollouts"]) == (4, {"ok": 1})


def test_the_id_stays(start: Callable[..., Hub]) -> None:
    """A hub that comes back on its folder is the same hub."""
    hub = start()
    before = hub.ready["hub"]
    hub.kill()
    hub.start()
    assert hub.ready["hub"] == before


# --- bounds


def test_a_full_disk_stops_nothing_for_good(start: Callable[..., Hub]) -> None:
    """While log and database cannot be written nothing is acknowledged; once they can, the events are taken."""
    hub = start()
    with Client(hub) as client:
        client.deliver(1, [span("a")])
        limit(hub, (hub.folder / "spans" / "000001.log").stat().st_size)
        client.batch(2, [span("b")])
        assert client.quiet(0.8)  # longer than the database waits with what is new
        limit(hub, -1)
        acked, deadline = 1, time.monotonic() + 60
        while acked < 2 and time.monotonic() < deadline:
            client.batch(2, [span("b")])
            if not client.quiet(0.2):
                kind, message = client.receive()
                acked = message["acked"] if kind == wire.ACK else acked
        told = client.ask("status")
    assert acked == 2
    assert told["write_errors"] >= 1
    hub.stop()
    assert names(hub.folder) == ["a", "b"]
    assert "cannot be written" in hub.log()


def limit(hub: Hub, size: int) -> None:
    """Bound the size of files that the hub's process may write, which fails like a full disk."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("prlimit is Linux only")
    hard = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))
