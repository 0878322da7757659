"""A stream of chat completion chunks as Anthropic's events: their order, cut anywhere, broken, and ended early."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sdk.translation.messages import translate
from lightning_sdk.translation.sse import EventReader

HELLO = [{"role": "user", "content": "hello"}]


def call(arguments: str, number: int = 0, name: str = "weather") -> dict[str, Any]:
    return {
        "index": number,
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return (
        b"data: " + json.dumps({"id": "chatcmpl-1", "model": "policy", "choices": choices, **fields}).encode() + b"\n\n"
    )


USAGE = chunk(usage={"prompt_tokens": 7, "completion_tokens": 3})
DONE = b"data: [DONE]\n\n"
STREAM = [
    chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2, 3, 4, 5, 6, 7]),
    chunk({"reasoning_content": "hm"}),
    chunk({"content": "Grüße "}),
    chunk({"content": "🙂"}),
    chunk({"tool_calls": [call('{"city":', 0)]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": ' "Köln"}'}}]}),
    chunk({"tool_calls": [call("{}", 1)]}),
    chunk({}, "tool_calls"),
    USAGE,
    DONE,
]


def events(pieces: list[bytes]) -> list[dict[str, Any]]:
    """What the caller gets, with each event's name checked against its type."""
    translation = translate({"model": "claude-x", "messages": HELLO, "stream": True, "stop_sequences": ["END"]})
    out = b"".join(translation.feed(piece) for piece in pieces) + translation.end()
    read = [json.loads(data) for data in EventReader().feed(out)]
    assert [line[7:] for line in out.decode().splitlines() if line.startswith("event: ")] == [e["type"] for e in read]
    return read


def test_stream() -> None:
    """The whole sequence: message, a block of each kind one after another, and the end with its usage."""
    zero = {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    delta, start, stop = "content_block_delta", "content_block_start", "content_block_stop"
    tool = {"type": "tool_use", "name": "weather", "input": {}}
    assert events(STREAM) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "policy",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": zero,
            },
        },
        {"type": start, "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": delta, "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": stop, "index": 0},
        {"type": start, "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": delta, "index": 1, "delta": {"type": "text_delta", "text": "Grüße "}},
        {"type": delta, "index": 1, "delta": {"type": "text_delta", "text": "🙂"}},
        {"type": stop, "index": 1},
        {"type": start, "index": 2, "content_block": {**tool, "id": "call_0"}},
        {"type": delta, "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": delta, "index": 2, "delta": {"type": "input_json_delta", "partial_json": ' "Köln"}'}},
        {"type": stop, "index": 2},
        {"type": start, "index": 3, "content_block": {**tool, "id": "call_1"}},
        {"type": delta, "index": 3, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": stop, "index": 3},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {**zero, "output_tokens": 3},
        },
        {"type": "message_stop"},
    ]


@given(cuts=st.lists(st.integers(0, sum(map(len, STREAM))), max_size=40), newline=st.sampled_from([b"\n", b"\r\n"]))
def test_stream_cut_anywhere(cuts: list[int], newline: bytes) -> None:
    """Wherever the network cuts the bytes, between events, in a character, in a line end, the events are the same."""
    whole = b"".join(STREAM).replace(b"\n", newline)
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    assert events([whole[a:b] for a, b in pairwise(edges)]) == events(STREAM)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("content"), st.text(min_size=1, max_size=5)),
            st.tuples(st.just("reasoning"), st.text(min_size=1, max_size=5)),
            st.tuples(st.just("tool"), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)),
        ),
        max_size=8,
    )
)
def test_stream_and_whole_reply_say_the_same(pieces: list[tuple[str, Any]]) -> None:
    """Each piece of text and each call arrives, once and in order, and no block overlaps another."""
    chunks, tools = [], 0
    for kind, value in pieces:
        if kind == "tool":
            chunks.append(chunk({"tool_calls": [call(json.dumps(value), tools)]}))
            tools += 1
        else:
            chunks.append(chunk({kind: value}))
    got, block = [], None
    for event in events([*chunks, chunk({}, "stop"), USAGE, DONE]):
        if event["type"] == "content_block_start":
            assert block is None
            block = event["index"]
        elif event["type"] == "content_block_stop":
            assert block == event["index"]
            block = None
        elif event["type"] == "content_block_delta":
            assert block == event["index"]
            delta = event["delta"]
            kind = {"text_delta": "content", "thinking_delta": "reasoning", "input_json_delta": "tool"}[delta["type"]]
            text = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
            got.append((kind, json.loads(text) if kind == "tool" else text))
        elif event["type"] == "message_delta":
            assert event["delta"]["stop_reason"] == ("tool_use" if tools else "end_turn")
    assert got == pieces


def test_stream_without_usage_counts_ids() -> None:
    """An engine that tells no usage told the ids, which can be counted."""
    ids = [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "token_ids": [5, 6]}]
    found = events([chunk(choices=ids, prompt_token_ids=[1, 2, 3]), DONE])
    assert found[-2]["usage"]["input_tokens"] == 3 and found[-2]["usage"]["output_tokens"] == 2


def test_stop_sequence_in_a_stream() -> None:
    """The stop string that the engine met is told at the end."""
    ending = [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}]
    found = events([chunk(choices=ending), DONE])
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([STREAM[2], b'data: {"error": {"message": "out of memory"}}\n\n', DONE], "out of memory"),
        ([STREAM[2]], "ended before"),
        ([STREAM[2], b"data: nonsense\n\n"], "nonsense"),
    ],
)
def test_stream_that_breaks(pieces: list[bytes], said: str) -> None:
    """An error of the engine, a cut, or nonsense ends the stream with Anthropic's error event and nothing after it."""
    found = events(pieces)
    assert [event["type"] for event in found[-2:]] == ["content_block_delta", "error"]
    assert found[-1]["error"]["type"] == "api_error" and said in found[-1]["error"]["message"]


def test_stream_that_ends_without_done() -> None:
    """Some servers close the stream after the last chunk; the message ends all the same."""
    assert [event["type"] for event in events([STREAM[2], chunk({}, "stop")])][-2:] == ["message_delta", "message_stop"]
