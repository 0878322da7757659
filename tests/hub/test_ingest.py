"""Events over a real socket into a real hub process: durable before they are acknowledged, counted once."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable

import pytest

from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch
from lightning_sdk.trace.call import Call
from tests.hub.hubs import KEY, Client, Hub, begin, end, names, raw_call, read_log, reply, reward, rollouts, span

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
    kinds = [event[0] for event in read_log(hub.folder)]
    assert kinds == [Event.SPAN, Event.CALL, Event.CALL, Event.SPAN]
    good, broken = (Call.unpack(event[2]) for event in read_log(hub.folder)[1:3])
    assert (good.problem, good.meta.role) == ("", "solver")
    assert broken.reply == b"{broken"
    assert "cannot be read" in broken.problem


def test_an_overlap_of_raw_replies(hub: Hub, client: Client) -> None:
    """What is sent again raw is the same event, although the log holds it decoded."""
    client.deliver(1, [raw_call(NO_ROLLOUT, reply("one"))])
    client.deliver(1, [raw_call(NO_ROLLOUT, reply("one")), raw_call(NO_ROLLOUT, reply("two"))])
    hub.stop()
    messages = [Call.unpack(event[2]).choices[0].message for event in read_log(hub.folder)]
    assert [b"one" in message for message in messages] == [True, False]


def test_garbage_hurts_nobody(hub: Hub, client: Client) -> None:
    """Whatever frames a peer sends, with or without a greeting, the hub goes on taking events."""
    chance = random.Random(0)
    body = wire.pack(span("a"))
    with Client(hub) as rude, Client(hub, hello=False) as stranger:
        batches = [
            (EventBatch(rude.id, 1, 1, body).header(), body[:-1]),
            (EventBatch(rude.id, 1, 2, body).header(), body),
            (EventBatch(rude.id, 1, 0, b"").header(), b""),
            (EventBatch(rude.id, 0, 1, body).header(), body),
            (EventBatch(os.urandom(16), 1, 1, body).header(), body),
            (b"short", body),
            *(
                (EventBatch(rude.id, 1, 1, junk).header(), junk)
                for junk in (
                    b"\xc1",
                    b"\x93\x03",
                    b"\x91" * 5000,
                    wire.pack({"a": 1}),
                    wire.pack([3]),
                    wire.pack([3, b"k", []]),
                )
            ),
        ]
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


def test_raw_bytes_on_the_port_hurt_nobody(start: Callable[..., Hub]) -> None:
    """Something that does not speak ZeroMQ at all, such as a browser, is ignored."""
    hub = start(bind="tcp://127.0.0.1:0")
    port = int(hub.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as browser:
        browser.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + os.urandom(1000))
        with Client(hub) as guest:
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


def test_only_a_number_is_a_reward(hub: Hub, client: Client) -> None:
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
