"""Events over a real socket into a real hub process: durable before they are acknowledged, counted once."""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from hubs import KEY, Client, Hub, begin, end, raw_call, reply, reward, span

from lightning_hub.log import Log
from lightning_sdk import wire
from lightning_sdk.call import Call
from lightning_sdk.errors import HubError
from lightning_sdk.wire import NO_ROLLOUT, Batch, Event


def logged(folder: Path) -> list[list[Any]]:
    """Every event in the log of a hub that does not run."""
    log = Log(folder / "spans")
    events = [event for _, batch in log.recover(0) for event in batch.events()]
    log.close()
    return events


def names(folder: Path) -> list[str]:
    """Names of all logged spans."""
    return [event[2][2] for event in logged(folder)]


def rollouts(folder: Path) -> list[tuple[Any, ...]]:
    """id, status, error, output of all rollouts."""
    with sqlite3.connect(folder / "hub.sqlite") as database:
        found = database.execute("SELECT id, status, error, output FROM rollouts ORDER BY started").fetchall()
    database.close()
    return found


# --- greeting


def test_the_right_key_is_welcome(busy_hub: Hub) -> None:
    """WELCOME names the hub and where the client stands."""
    hub = busy_hub
    with Client(hub) as client:
        assert client.expect(wire.WELCOME) == {"hub": hub.ready["hub"], "acked": 0}
        client.deliver(1, [span("a"), span("b")])
    with Client(hub, client=client.id) as again:
        assert again.expect(wire.WELCOME)["acked"] == 2


@pytest.mark.parametrize("key", ["wrong", "", "sécret"])
def test_a_wrong_key_is_refused(busy_hub: Hub, key: str) -> None:
    """REFUSED says why, and what follows is not taken."""
    with Client(busy_hub, key=key) as client:
        assert client.expect(wire.REFUSED) == {"reason": "wrong key"}
        client.batch(1, [span("a")])
        assert client.receive()[0] == wire.HELLO
    with Client(busy_hub, client=client.id) as again:
        assert again.expect(wire.WELCOME)["acked"] == 0


def test_another_protocol_is_refused(busy_hub: Hub) -> None:
    """The reason names both versions and what to do."""
    with Client(busy_hub, hello=False) as client:
        client.send(wire.HELLO, wire.pack({"protocol": 99, "client": client.id, "key": KEY}))
        reason = client.expect(wire.REFUSED)["reason"]
    assert "protocol 99 is not 1" in reason
    assert "install" in reason


def test_a_stranger_is_asked_to_greet(busy_hub: Hub) -> None:
    """After a restart of the hub a client goes on sending; it is told to say HELLO, but not for each batch."""
    with Client(busy_hub, hello=False) as client:
        for _ in range(50):
            client.batch(1, [span("a")])
        asked = client.until_quiet()
    assert asked[0] == (wire.HELLO, {"hub": busy_hub.ready["hub"]})
    assert len(asked) < 25


# --- events


def test_duplicates_count_once(hub: Hub, client: Client) -> None:
    """A batch sent again is acknowledged and dropped, also under another connection."""
    events = [span("a"), span("b")]
    client.deliver(1, events)
    client.deliver(1, events)
    with Client(hub, client=client.id) as again:
        again.deliver(1, events)
        told = again.ask("status")
    assert (told["events"], told["duplicates"]) == (2, 4)
    hub.stop()
    assert names(hub.folder) == ["a", "b"]


def test_of_an_overlap_only_the_new_tail_is_taken(hub: Hub, client: Client) -> None:
    """A client may cut its batches differently the second time."""
    client.deliver(1, [span("a"), span("b")])
    client.deliver(2, [span("b"), span("c"), span("d")])
    assert client.ask("status")["duplicates"] == 1
    hub.stop()
    assert names(hub.folder) == ["a", "b", "c", "d"]


def test_a_gap_is_asked_for(hub: Hub, client: Client) -> None:
    """Nothing after a gap is taken; WELCOME says what is missing, but not for each batch."""
    client.expect(wire.WELCOME)
    client.deliver(1, [span("a")])
    for first in range(3, 53):
        client.batch(first, [span("later")])
    asked = client.until_quiet()
    assert {(kind, message["acked"]) for kind, message in asked} == {(wire.WELCOME, 1)}
    assert len(asked) < 25
    client.deliver(2, [span("b"), span("c"), span("d"), span("e")])
    hub.stop()
    assert names(hub.folder) == list("abcde")


def test_a_raw_reply_is_decoded_before_it_is_logged(hub: Hub, client: Client) -> None:
    """REPLY events lie in the log as CALL, in their place between others."""
    client.deliver(1, [span("a"), raw_call(NO_ROLLOUT, reply()), raw_call(NO_ROLLOUT, b"{broken"), span("b")])
    assert client.ask("status")["undecodable"] == 1
    hub.stop()
    kinds = [event[0] for event in logged(hub.folder)]
    assert kinds == [Event.SPAN, Event.CALL, Event.CALL, Event.SPAN]
    good, broken = (Call.unpack(event[2]) for event in logged(hub.folder)[1:3])
    assert (good.problem, good.meta.role) == ("", "solver")
    assert broken.reply == b"{broken"
    assert "cannot be read" in broken.problem


def test_an_overlap_of_raw_replies(hub: Hub, client: Client) -> None:
    """What is sent again raw is the same event, although the log holds it decoded."""
    client.deliver(1, [raw_call(NO_ROLLOUT, reply("one"))])
    client.deliver(1, [raw_call(NO_ROLLOUT, reply("one")), raw_call(NO_ROLLOUT, reply("two"))])
    hub.stop()
    messages = [Call.unpack(event[2]).choices[0].message for event in logged(hub.folder)]
    assert [b"one" in message for message in messages] == [True, False]


def test_garbage_hurts_nobody(hub: Hub, client: Client) -> None:
    """Whatever frames a peer sends, with or without a greeting, the hub goes on taking events."""
    chance = random.Random(0)
    body = wire.pack(span("a"))
    with Client(hub) as rude, Client(hub, hello=False) as stranger:
        batches = [
            (Batch(rude.id, 1, 1, body).header(), body[:-1]),
            (Batch(rude.id, 1, 2, body).header(), body),
            (Batch(rude.id, 1, 0, b"").header(), b""),
            (Batch(rude.id, 0, 1, body).header(), body),
            (Batch(os.urandom(16), 1, 1, body).header(), body),
            (b"short", body),
            *((Batch(rude.id, 1, 1, junk).header(), junk) for junk in
              (b"\xc1", b"\x93\x03", b"\x91" * 5000, wire.pack({"a": 1}), wire.pack([3]), wire.pack([3, b"k", []]))),
        ]  # fmt: skip
        for peer in (rude, stranger):
            for header, junk in batches:
                peer.send(wire.BATCH, header, junk)
            for kind in range(256):
                frames = [chance.randbytes(chance.randrange(80)) for _ in range(chance.randrange(4))]
                peer.send(bytes([kind]), *frames)
            for kind in (wire.HELLO, wire.REQUEST):
                for value in ([], {}, [1], [1, 2, 3], ["x", "status", {}], {"client": b"x", "key": 1, "protocol": 1}):
                    peer.send(kind, wire.pack(value))
            peer.send(b"")
        client.deliver(1, [span("good")])
        told = client.ask("status")
    assert told["garbage"] > 100
    hub.stop()
    assert "good" in names(hub.folder)


def test_raw_bytes_on_the_port_hurt_nobody(busy_hub: Hub, guest: Client) -> None:
    """Something that does not speak ZeroMQ at all, such as a browser, is ignored."""
    port = int(busy_hub.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + os.urandom(1000))
    guest.deliver(1, [span("good")])


# --- rollouts that nobody leased


def test_an_observed_rollout(hub: Hub, client: Client) -> None:
    """BEGIN opens it, END closes it; what it was rewarded is kept."""
    key = os.urandom(16)
    client.deliver(1, [begin(key, "r1", {"q": "1+1"}), span("a", key)])
    assert client.ask("status")["rollouts"] == {"running": 1}
    client.deliver(3, [reward(key, 0.5, "solver"), end(key, output="2")])
    assert client.ask("status")["rollouts"] == {"ok": 1}
    hub.stop()
    assert rollouts(hub.folder) == [("r1", "ok", "", "2")]


def test_what_is_no_number_is_no_reward(hub: Hub, client: Client) -> None:
    """The rollout ends as reward_error, with the value and its name in the reason."""
    values = [float("nan"), float("inf"), 1e39, None, "high"]
    keys = [os.urandom(16) for _ in values]
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        client.deliver(number * 3 + 1, [begin(key, f"r{number}"), reward(key, value, name="correct"), end(key)])
    hub.stop()
    for value, (_, status, error, _) in zip(values, rollouts(hub.folder), strict=True):
        assert status == "reward_error"
        assert "'correct'" in error
        assert repr(value) in error


def test_only_the_first_end_counts(hub: Hub, client: Client) -> None:
    """A second END changes nothing and counts as late."""
    key = os.urandom(16)
    client.deliver(1, [begin(key, "r1"), end(key), end(key, "agent_error", "late")])
    assert client.ask("status")["late"] == 1
    hub.stop()
    assert rollouts(hub.folder) == [("r1", "ok", "", "")]


# --- crashes


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
    events = logged(hub.folder)
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
    torn = Batch(client.id, 2, 1, wire.pack(span("b")))
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
        acked, deadline = 1, time.monotonic() + 10
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


# --- the process


def test_a_port_in_use_is_named(start: Callable[..., Hub]) -> None:
    """The error has the address and what to do."""
    first = start("one")
    second = start("two", bind=first.address)
    name, message = second.ready["error"]
    assert name == "PortInUse"
    assert first.address in message
    assert "tcp://127.0.0.1:0" in message
    assert second.process.wait(10) == 1


def test_an_address_that_is_none(start: Callable[..., Hub]) -> None:
    """The error has the address and how one looks."""
    name, message = start(bind="nonsense").ready["error"]
    assert name == "HubError"
    assert "'nonsense'" in message
    assert "tcp://127.0.0.1" in message


def test_one_folder_one_hub(start: Callable[..., Hub]) -> None:
    """A second hub on the same folder would tear the log."""
    first = start()
    name, message = start(bind="tcp://127.0.0.1:0").ready["error"]
    assert name == "HubError"
    assert str(first.process.pid) in message


def test_the_hub_goes_with_its_parent(hub: Hub) -> None:
    """Standard input closes when whoever started the hub is gone, killed or not."""
    assert hub.stop() == 0


def test_stop_ends_the_hub(hub: Hub, client: Client) -> None:
    """The request answers and the process exits in good order."""
    assert client.ask("stop") is None
    assert hub.process.wait(10) == 0


def test_terminate_ends_the_hub(hub: Hub, client: Client) -> None:
    """SIGTERM is a graceful end: what was acknowledged is indexed."""
    client.deliver(1, [span("a")])
    hub.process.terminate()
    assert hub.process.wait(10) == 0
    with sqlite3.connect(hub.folder / "hub.sqlite") as database:
        assert database.execute("SELECT value FROM meta WHERE name = 'events'").fetchone() == (1,)
    database.close()


def test_a_hub_without_configuration_says_so() -> None:
    """Started by hand, it answers with what it wanted."""
    done = subprocess.run(
        [sys.executable, "-m", "lightning_hub"], input=b"hello\n", capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert b"not its configuration" in done.stdout


# --- requests


def test_an_unknown_method_is_named(guest: Client) -> None:
    """With the methods that there are."""
    with pytest.raises(HubError, match=r"no method 'dance'.*lease.*status"):
        guest.ask("dance")


def test_a_request_without_its_params_is_an_error(guest: Client) -> None:
    """The hub survives and says which."""
    with pytest.raises(HubError, match=r"lease failed.*runner"):
        guest.ask("lease")
    assert guest.ask("status")["hub"]


def test_a_lease_waits_and_comes_back_empty(guest: Client) -> None:
    """Without work the answer comes when the wait is over."""
    assert guest.ask("lease", runner="r", slots=1, wait=0.05) == []


def test_a_message_beyond_the_limit_is_not_read(busy_hub: Hub, guest: Client) -> None:
    """The connection that sends it is cut; others go on."""
    giant = zmq.Context.instance().socket(zmq.DEALER)
    giant.set(zmq.LINGER, 0)
    giant.connect(busy_hub.address)
    giant.send_multipart([wire.BATCH, b"h", bytes(wire.MAX_MESSAGE_BYTES + 1)])
    guest.deliver(1, [span("a")])
    assert not giant.poll(100)
    giant.close(linger=0)
