"""Events of every kind, decoded from the bytes that this version and earlier ones send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lightning_hub.decoding.events import Begin, DecodedEvent, Unusable, decode_event
from lightning_sdk.stream import sink, wire
from lightning_sdk.stream.events import MAX_REASON_CHARACTERS, EndEvent, ReplyEvent, RewardEvent
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call, CallMeta, Choice, Span, Status
from lightning_sdk.trace.scope import RolloutScope
from tests.hub.hubs import meta
from tests.sdk.recorder import Recorder

KEY = b"k" * 16
META = meta()
SPAN = Span(id="1" * 16, parent="", name="turn", role="solver", started_ns=1, ended_ns=2, status="ok", error="")
CALL = Call(
    meta=CallMeta(*META),
    request=b"{}",
    response_id="r",
    model="m",
    prompt_ids=wire.pack_ints([1, 2]),
    choices=(
        Choice(
            index=0,
            message=b"{}",
            finish_reason="stop",
            token_ids=wire.pack_ints([3]),
            logprobs=wire.pack_floats([-1.0]),
        ),
    ),
    input_tokens=2,
    output_tokens=1,
)


REWARD: dict[str, Any] = {"value": 0.5, "role": "a", "name": "n", "span": "s", "time_ns": 7}
END: dict[str, Any] = {"status": Status.TIMEOUT, "error": "late", "time_ns": 7, "output": "42"}
UNKEPT = "its process sent none that could be kept"


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        (
            [1, KEY, META, b"{}", b"reply"],
            ReplyEvent(kind=Event.REPLY, key=KEY, meta=CallMeta(*META), request=b"{}", reply=b"reply"),
        ),
        ([2, KEY, CALL.pack()], CALL),
        ([3, KEY, SPAN.pack()], SPAN),
        ([3, KEY, SPAN.pack()[:8]], SPAN),
        ([4, KEY, 0.5, "a", "n", "s", 7, True], RewardEvent(Event.REWARD, KEY, **REWARD, by_function=True)),
        ([4, KEY, 0.5, "a", "n", "s", 7], RewardEvent(Event.REWARD, KEY, **REWARD, by_function=None, why="")),
        (
            [4, KEY, 0.5, "a", "n", "s", 7, True, "unit missing", "of a later version"],
            RewardEvent(Event.REWARD, KEY, **REWARD, by_function=True, why="unit missing"),
        ),
        ([4, KEY, 0.5, "a", "n", "s", 7, True, 3], RewardEvent(Event.REWARD, KEY, **REWARD, by_function=True)),
        (
            [4, KEY, 0.5, "a", "n", "s", 7, True, "x" * 10_000],
            RewardEvent(Event.REWARD, KEY, **REWARD, by_function=True, why="x" * MAX_REASON_CHARACTERS),
        ),
        ([5, KEY, "r", {"q": 1}, 7], Begin(key=KEY, rollout="r", task='{"q": 1}', time_ns=7)),
        (
            [6, KEY, "timeout", "late", 7, "42", "[42]", "unread"],
            EndEvent(Event.END, KEY, **END, answer="[42]", unkept=""),
        ),
        (
            [6, KEY, "timeout", "late", 7, "42", "", "why", "of a later version"],
            EndEvent(Event.END, KEY, **END, answer="", unkept="why"),
        ),
        ([6, KEY, "timeout", "late", 7, "42"], EndEvent(Event.END, KEY, **END, answer="", unkept=UNKEPT)),
    ],
)
def test_what_is_on_the_wire_has_its_fields_in_this_order(fields: list[Any], event: DecodedEvent) -> None:
    """Logs of earlier runs are read back from the same positions, some of them without the last fields."""
    assert decode_event(wire.pack(fields)) == event


def test_a_call_or_a_span_that_cannot_be_read_says_which_it_was() -> None:
    """Without the call nothing can be learned from its rollout; a span is left out."""
    for fields in ([2, KEY, [META]], [2, KEY], [3, KEY, ["id"]], [3, KEY, SPAN.pack(), 1]):
        found = decode_event(wire.pack(fields))
        assert isinstance(found, Unusable)
        assert found.kind == fields[0]
        assert found.why


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Everything that this process would stream, in a list."""
    recorder = Recorder()
    sink.connect(recorder)
    yield recorder
    sink.connect(None)


def test_what_the_sdk_sends_is_what_the_hub_reads(recorder: Recorder) -> None:
    """Each kind that an agent's process sends, packed as the stream packs it."""
    scope = RolloutScope("r" * 32, KEY)
    sink.send_begin(scope, {"q": 1})
    sink.send_reply(scope, CALL.meta, b"{}", b"reply")
    sink.send_span(scope, SPAN)
    sink.send_reward(scope, 0.5, "solver", "correct", SPAN.id, by_function=True, why="unit missing")
    sink.send_end(scope, Status.AGENT_ERROR, "why", "shown", '"kept"', "")
    begin, reply, span, reward, end = (decode_event(wire.pack(event)) for event in recorder.events)
    assert isinstance(begin, Begin)
    assert (begin.key, begin.rollout, begin.task) == (KEY, "r" * 32, '{"q": 1}')
    assert reply == ReplyEvent(Event.REPLY, KEY, CALL.meta, b"{}", b"reply")
    assert span == SPAN
    assert isinstance(reward, RewardEvent)
    assert (reward.value, reward.role, reward.name, reward.span) == (0.5, "solver", "correct", SPAN.id)
    assert reward.by_function
    assert reward.why == "unit missing"
    assert isinstance(end, EndEvent)
    assert (end.status, end.error, end.output, end.answer) == (Status.AGENT_ERROR, "why", "shown", '"kept"')
