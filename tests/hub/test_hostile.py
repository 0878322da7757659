"""Nothing that arrives can stop what comes after it: events, replies, requests and logs that hold the unexpected."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_hub.decoding.replies import decode
from lightning_hub.decoding.spans import read_call, read_span
from lightning_hub.hub import Config, Hub
from lightning_hub.rollouts.archive import Archive
from lightning_hub.rollouts.collector import strays
from lightning_hub.storage.log import Log
from lightning_hub.storage.set_aside import NAME
from lightning_sdk.errors import HubError, SettingError, TaskError
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.run_request import RunRequest
from lightning_sdk.hub.task_lists import send_ahead
from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import NO_ROLLOUT, EventBatch
from lightning_sdk.trace.call import Call, CallMeta
from tests.hub import hostile
from tests.hub.hubs import KEY, Client, begin, end, meta, raw_call, read_log, reply, reward, rollouts, span

KEY_OF = b"k" * 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


class Opener:
    """Opens hubs in this process on one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hub: Hub | None = None

    def __call__(self, workers: int = 0) -> Hub:
        self.close()
        self._hub = Hub(Config(run=str(self._folder), key=KEY, workers=workers))
        return self._hub

    def close(self) -> None:
        if self._hub is not None:
            self._hub.close()
            self._hub = None


@pytest.fixture
def open_hub(folder: Path) -> Iterator[Opener]:
    opener = Opener(folder)
    yield opener
    opener.close()


def nest(depth: int) -> bytes:
    """A list in a list in a list, packed: `msgpack` itself would refuse to."""
    return b"\x91" * depth + b"\xc0"


def begin_with(task: bytes, time_ns: int = 5) -> bytes:
    """A BEGIN event whose task is packed already."""
    return b"\x95\x05\xc4\x10" + KEY_OF + wire.pack("r") + task + wire.pack(time_ns)


def aside(folder: Path) -> list[dict[str, Any]]:
    """What a run has set aside."""
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


UNUSABLE = {
    "a key of bytes": (wire.pack(begin(KEY_OF, "r", {b"k": 1})), "has the key b'k'"),  # type: ignore[dict-item]
    "a key of int": (begin_with(b"\x81\x01\x02"), "has the key 1"),
    "bytes": (wire.pack(begin(KEY_OF, "r", {"k": b"x"})), "['k'] is b'x'"),
    "995 deep": (begin_with(b"\x81\xa1k" + nest(995)), "nested too deeply"),
    "1500 deep": (wire.pack(reward(KEY_OF, 1.0))[:-9] + b"\xcf" + b"\xff" * 8, "Expected `int` <="),
    "no task": (begin_with(b"\x03"), "its task is 3"),
    "a late reward": (wire.pack([4, KEY_OF, 1.0, "", "final", "", 2**63]), "Expected `int` <="),
    "an early end": (wire.pack([6, KEY_OF, "ok", "", -1, ""]), "Expected `int` >="),
    "an unknown end": (wire.pack([6, KEY_OF, "wonderful", "", 1, ""]), "wonderful"),
    "a role of bytes": (wire.pack([4, KEY_OF, 1.0, b"\xff", "final", "", 5]), "Expected `str`"),
    "a role that is not text": (wire.pack([4, KEY_OF, 1.0, "xx", "final", "", 5]).replace(b"xx", b"\xff\xfe"), "UTF-8"),
    "too little": (wire.pack([4, KEY_OF]), "at least length"),
    "no kind that is known": (wire.pack([99, KEY_OF, 1]), "99"),
    "a call that is none": (wire.pack([1, KEY_OF, ["x"], b"", b""]), "malformed"),
}


def put(client: Client, event: bytes, number: int) -> None:
    """Send one packed event and wait until it is acknowledged."""
    batch = EventBatch(client.id, number, 1, event)
    client.send(wire.BATCH, batch.header(), event)
    while client.expect(wire.ACK)["acked"] < number:
        pass


def test_an_event_that_nothing_can_be_made_of_is_set_aside(open_hub: Opener, folder: Path) -> None:
    """What comes after it is stored, the folder opens again, a person finds it with its reason, and it is told."""
    hub = open_hub()
    with Client(hub) as client:
        for number, (event, _) in enumerate(UNUSABLE.values(), 1):
            put(client, event, number)
        good = os.urandom(16)
        client.deliver(len(UNUSABLE) + 1, [begin(good, "good", {"q": 1}), reward(good, 1.0), end(good)])
        assert client.ask("status")["malformed"] == len(UNUSABLE)
        warnings = [event["text"] for event in client.ask("watch") if event["type"] == "warning"]
    assert "set-aside.jsonl lists them" in warnings[0]
    for line, (name, (_, why)) in zip(aside(folder), UNUSABLE.items(), strict=True):
        assert why in line["why"], name
        assert line["where"].startswith("spans/000001.log, byte ")
    open_hub()
    assert ("good", "ok", "", "") in rollouts(folder)


def test_a_log_that_holds_such_events_already_opens(open_hub: Opener, folder: Path) -> None:
    """As a hub of an earlier version left it: logged and acknowledged, and never indexed."""
    log = Log(folder / "spans")
    for number, (event, _) in enumerate(UNUSABLE.values(), 1):
        batch = EventBatch(b"c" * 16, number, 1, event)
        log.append([(batch.header(), event)])
    body = b"\xc1" * 40
    log.append([(EventBatch(b"c" * 16, len(UNUSABLE) + 1, 1, body).header(), body)])
    last = EventBatch(b"c" * 16, len(UNUSABLE) + 2, 1, wire.pack(begin(b"g" * 16, "good")))
    log.append([(last.header(), last.body)])
    log.close()
    hub = open_hub()
    with Client(hub, client=b"c" * 16) as client:
        assert client.expect(wire.WELCOME)["acked"] == len(UNUSABLE) + 2
    assert len(aside(folder)) == len(UNUSABLE) + 1
    assert [row[0] for row in rollouts(folder)] == ["good"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reply_of_any_kind_is_one_call(open_hub: Opener, folder: Path, workers: int) -> None:
    """Half a character in an id, numbers beyond 64 bits, nesting without end: one damaged call."""
    answers = [*hostile.replies(), (False, json.dumps(reply()).encode())]
    hub = open_hub(workers=workers)
    with Client(hub) as client:
        for number, (streamed, body) in enumerate(answers, 1):
            client.deliver(number, [raw_call(NO_ROLLOUT, body, streamed=streamed)])
    open_hub.close()
    calls = [Call.unpack(event[2]) for event in read_log(folder)]
    assert len(calls) == len(answers)
    assert not calls[-1].problem
    assert calls[-1].choices
    open_hub()


def test_half_a_character_costs_only_itself(open_hub: Opener, folder: Path) -> None:
    """A reply with a lone surrogate is read, with the replacement character in its place; a whole pair stays."""
    streamed = hostile.anthropic_stream("msg_\\ud800", "so \\ud83d\\ude00 \\udc00 \\\\ud800")
    hub = open_hub()
    with Client(hub) as client:
        client.deliver(1, [raw_call(NO_ROLLOUT, streamed, streamed=True, trainable=False)])
        client.deliver(2, [raw_call(NO_ROLLOUT, json.dumps(reply("x \ud800")).encode())])
    open_hub.close()
    first, second = (Call.unpack(event[2]) for event in read_log(folder))
    assert (first.response_id, first.problem) == ("msg_\ufffd", "")
    assert json.loads(first.choices[0].message)["content"] == "so \U0001f600 \ufffd \\ud800"
    assert json.loads(second.choices[0].message)["content"] == "x \ufffd"
    assert not second.problem
    open_hub()


def test_what_was_set_aside_costs_nothing_else(open_hub: Opener, folder: Path) -> None:
    """A rollout among whose events are such that cannot be read keeps its calls and rewards, and so does what is of no
    rollout."""
    odd = [event for event, _ in UNUSABLE.values()]
    odd.append(wire.pack(span("x", KEY_OF)).replace(b"\x80", b"\x81\x01\x02"))
    odd.append(wire.pack(span("x", KEY_OF)).replace(b"solver", b"\xff" * 6))
    good = [
        wire.pack(event)
        for event in (
            begin(KEY_OF, "r1"),
            raw_call(KEY_OF, reply("kept")),
            span("s", KEY_OF),
            reward(KEY_OF, 0.5),
            end(KEY_OF),
        )
    ]
    hub = open_hub()
    with Client(hub) as client:
        number = 0
        for event in [*odd, *good]:
            for key in (KEY_OF, NO_ROLLOUT):
                put(client, event.replace(KEY_OF, key), number := number + 1)
        loose = strays(hub.index, 0)
    assert [getattr(each, "name", "a call") for each in loose] == ["a call", "s"]
    open_hub.close()
    archive = Archive(folder)
    [rollout] = archive.rollouts(archive.entries("observe"))
    assert [json.loads(call.choices[0].message)["content"] for call in rollout.calls] == ["kept"]
    assert [each.name for each in rollout.spans] == ["s"]
    assert [each.value for each in rollout.rewards] == [0.5]


def test_events_that_are_read_back_are_checked(open_hub: Opener) -> None:
    """A CALL or SPAN whose fields have other types than a seam's is refused where it is read."""
    whole = decode(CallMeta(*meta()), b"{}", json.dumps(reply()).encode())
    assert read_call(wire.unpack(wire.pack(whole.pack()))) == whole
    good = [meta(), b"{}", "", "", b"", [], 0, 0, "no ids", b""]
    assert read_call(good).problem == "no ids"
    for place, value in ((0, meta(started_ns="x")), (0, meta(started_ns=2**63)), (4, b"abc"), (5, [1]), (8, None)):
        with pytest.raises((ValueError, TypeError)):
            read_call([*good[:place], value, *good[place + 1 :]])
    claimed = read_call([meta(), b"{}", "", "", b"", [[0, b"{}", "stop", b"", b"", []]], 3, 2, "", b""])
    assert "prompt_token_ids" in claimed.problem
    assert read_span(span("a")[2]).name == "a"
    for fields in (["id"], [*span("a")[2][:4], "x", 2, "ok", "", {}], 3):
        with pytest.raises((ValueError, TypeError)):
            read_span(fields)


# --- requests


@pytest.mark.parametrize("number", [float("inf"), 1e300, -1, 2**64 - 1, float("nan"), "x", None, [1]], ids=repr)
def test_a_request_with_an_impossible_number_is_thrown_away(open_hub: Opener, number: Any) -> None:
    """It cannot be answered; the next one is."""
    with Client(open_hub()) as client:
        client.expect(wire.WELCOME)
        client.send(wire.REQUEST, wire.pack([number, "status", {}]))
        assert client.ask("status")["garbage"] == 1


def test_a_task_with_another_key_is_refused_by_name(open_hub: Opener) -> None:
    """Whatever client sent it: the answer names the task and the key."""
    hub = open_hub()
    settings = lightning.Settings().as_dict()
    with HubClient(hub.address, KEY) as client:
        for tasks, said in (
            ([{"q": 1}, {"q": {7: "x"}}], r"tasks\[1\]\['q'\] has the key 7"),
            ([{b"q": 1}], r"tasks\[0\] has the key b'q'"),
            ([{"q": b"x"}], r"tasks\[0\]\['q'\] is b'x'"),
        ):
            with pytest.raises(TaskError, match=said):
                client.ask("train", settings=settings, tasks=tasks)
        with pytest.raises(TaskError, match="task 0 of tasks is 5"):
            client.ask("train", settings=settings, tasks=[5])


def test_a_long_list_of_tasks_goes_in_parts(open_hub: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has them all in order; what is wrong with one is said with its number in the whole list."""
    monkeypatch.setattr("lightning_sdk.hub.task_lists.PART_BYTES", 100)
    hub = open_hub()
    with HubClient(hub.address, KEY) as client:
        request = RunRequest(tasks=[{"q": str(n)} for n in range(100)], held_out=[{"q": "h"}], resume=True)
        sent = send_ahead(client, request)
        assert sent.tasks.keys() == {"list"} and (sent.held_out, sent.resume) == ([{"q": "h"}], True)
        assert hub._task_lists.resolve(sent) == request
        with pytest.raises(HubError, match="has no list"):
            client.ask("validate", settings={}, tasks=sent.tasks)  # each list once
        with pytest.raises(TaskError, match=r"tasks\[77\] has the key 1"):
            send_ahead(client, RunRequest(tasks=[{"q": str(n)} if n != 77 else {1: 1} for n in range(100)]))
        with pytest.raises(HubError, match="arrived after 0 tasks"):
            client.ask("tasks", list="other", name="tasks", first=5, tasks=[{"q": 1}])
        with pytest.raises(SettingError):  # and the hub goes on
            client.ask("validate", settings={"nothing": 1}, tasks=[{"q": 1}])


def test_what_no_hub_would_read_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch, open_hub: Opener) -> None:
    """At once and with its size, instead of the silence of a hub that never saw it."""
    hub = open_hub()
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 10_000)
    with HubClient(hub.address, KEY) as client, pytest.raises(HubError, match=r"'status' has 20,0.. bytes"):
        client.ask("status", text="x" * 20_000)


# --- the whole


def test_fuzz(start: Callable[..., Any]) -> None:
    """A thousand malformed messages of all kinds: what is good is stored, memory is bounded, and the folder opens."""
    hub = start(workers=0)
    chance = random.Random(7)
    with Client(hub) as good, Client(hub) as rude, Client(hub, hello=False) as stranger:
        before = 0
        for turn in range(20):
            for _ in range(50):
                for peer in (rude, stranger):
                    peer.send(*hostile.message(chance, rude))
            key = os.urandom(16)
            good.deliver(
                4 * turn + 1, [begin(key, f"r{turn}", {"q": turn}), raw_call(key, reply()), reward(key, 1.0), end(key)]
            )
            before = before or resident(hub.process.pid)
        told = good.ask("status")
        assert told["rollouts"]["ok"] >= 20
        assert told["garbage"] > 100
        assert resident(hub.process.pid) - before < 64 * 2**20
    assert hub.stop() == 0
    hub.start()
    with Client(hub, client=good.id) as again:
        assert again.expect(wire.WELCOME)["acked"] == 80
    found = {row[0]: row[1] for row in rollouts(hub.folder)}
    assert all(found[f"r{turn}"] == "ok" for turn in range(20))


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
