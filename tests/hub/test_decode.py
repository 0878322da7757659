"""Raw replies become calls: JSON and streams, chat and text completions, whole and broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_hub.decoding.replies import decode
from lightning_hub.trajectories.transition import transitions
from lightning_sdk.stream.wire import unpack_floats, unpack_ints
from lightning_sdk.trace.call import Call, CallMeta
from tests.hub.hubs import meta, reply


def decode_reply(answer: Any, **changes: Any) -> Call:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return decode(CallMeta(*meta(**changes)), b'{"n": 1}', body)


def sse(*chunks: Any, done: bool = True) -> bytes:
    lines = [f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([": ping\n\n", *lines, "data: [DONE]\n\n" if done else ""]).encode()


def chunk(delta: dict[str, Any] | None = None, index: int = 0, **changes: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, **changes.pop("choice", {})}
    return {"id": "chatcmpl-1", "model": "spark", "choices": [choice], **changes}


def ids_of(call: Call, choice: int = 0) -> list[int]:
    return list(unpack_ints(call.choices[choice].token_ids))


def test_a_chat_completion() -> None:
    """Ids, log-probs, versions, usage and the message come out as they were sent."""
    call = decode_reply(
        reply(
            "four",
            (7, 8, 9),
            choices=[
                {
                    "index": 0,
                    "finish_reason": "length",
                    "message": {"role": "assistant", "content": "four"},
                    "token_ids": [7, 8, 9],
                    "logprobs": {"content": [{"logprob": value} for value in (-0.5, -1, -0.25)]},
                    "weight_versions": [[3, 2], [4, 1]],
                }
            ],
        )
    )
    assert call.problem == ""
    assert list(unpack_ints(call.prompt_ids)) == [1, 2, 3]
    assert ids_of(call) == [7, 8, 9]
    assert list(unpack_floats(call.choices[0].logprobs)) == [-0.5, -1.0, -0.25]
    assert call.choices[0].versions == [[3, 2], [4, 1]]
    assert json.loads(call.choices[0].message) == {"role": "assistant", "content": "four"}
    assert (call.choices[0].finish_reason, call.input_tokens, call.output_tokens) == ("length", 3, 3)
    assert (call.response_id, call.model, call.request) == ("chatcmpl-1", "spark", b'{"n": 1}')


def test_a_call_survives_the_log() -> None:
    """pack and unpack are inverse."""
    call = decode_reply(reply())
    assert Call.unpack(call.pack()) == call


def test_a_text_completion() -> None:
    """The completions API puts prompt ids on the choice and log-probs into one list."""
    usage = {"prompt_tokens": 2, "completion_tokens": 2}
    call = decode_reply(
        {
            "id": "cmpl-1",
            "model": "spark",
            "usage": usage,
            "choices": [
                {
                    "index": 0,
                    "text": "4!",
                    "finish_reason": "stop",
                    "token_ids": [7, 8],
                    "prompt_token_ids": [1, 2],
                    "logprobs": {"token_logprobs": [-0.5, -0.25], "tokens": ["4", "!"]},
                }
            ],
        }
    )
    assert call.problem == ""
    assert (list(unpack_ints(call.prompt_ids)), ids_of(call)) == ([1, 2], [7, 8])
    assert json.loads(call.choices[0].message) == {"content": "4!"}


def test_several_choices() -> None:
    """n > 1 gives one choice each."""
    one = reply()["choices"][0]
    call = decode_reply(reply(choices=[one, {**one, "index": 1, "token_ids": [9, 9]}]))
    assert [ids_of(call, 0), ids_of(call, 1)] == [[7, 8], [9, 9]]


def test_a_stream_is_merged() -> None:
    """Deltas, tool calls by index, ids, log-probs, versions and usage add up to one message."""
    body = sse(
        chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2, 3]),
        chunk(
            {"content": "I "},
            choice={"token_ids": [7], "logprobs": {"content": [{"logprob": -0.5}]}, "weight_versions": [[1, 1]]},
        ),
        chunk(
            {"content": "add", "reasoning_content": "hm"},
            choice={
                "token_ids": [8, 9],
                "weight_versions": [[1, 1], [2, 1]],
                "logprobs": {"content": [{"logprob": -1}, {"logprob": -2}]},
            },
        ),
        chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "calc"}}]}),
        chunk(
            {
                "tool_calls": [
                    {"index": 1, "id": "b", "type": "function", "function": {"name": "calc", "arguments": "{}"}}
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk({}, choice={"finish_reason": "tool_calls"}),
        {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3}},
    )
    call = decode_reply(body, streamed=True)
    assert call.problem == ""
    assert json.loads(call.choices[0].message) == {
        "role": "assistant",
        "content": "I add",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "calc", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "calc", "arguments": "{}"}},
        ],
    }
    assert ids_of(call) == [7, 8, 9]
    assert list(unpack_floats(call.choices[0].logprobs)) == [-0.5, -1.0, -2.0]
    assert call.choices[0].versions == [[1, 2], [2, 1]]
    assert (call.choices[0].finish_reason, call.output_tokens) == ("tool_calls", 3)
    assert list(unpack_ints(call.prompt_ids)) == [1, 2, 3]


def test_a_stream_with_windows_line_ends_and_two_choices() -> None:
    """\\r\\n separates lines as well, and chunks of two choices may interleave."""
    body = sse(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({"content": "c"})).replace(
        b"\n", b"\r\n"
    )
    call = decode_reply(body, streamed=True, trainable=False)
    assert [json.loads(choice.message)["content"] for choice in call.choices] == ["ac", "b"]


def test_a_stream_that_ends_early() -> None:
    """A reader that closed early leaves a prefix, perhaps cut within a line: what came is kept."""
    whole = sse(
        chunk(
            {"content": "a"},
            prompt_token_ids=[1],
            choice={"token_ids": [7], "logprobs": {"content": [{"logprob": -1}]}},
        ),
        chunk({"content": "b"}),
    )
    call = decode_reply(whole[: whole.index(b'"b"') + 1], streamed=True, status="cancelled")
    assert json.loads(call.choices[0].message)["content"] == "a"
    assert (ids_of(call), call.problem) == ([7], "")


def test_an_error_inside_a_stream() -> None:
    """Servers that fail in the middle send an error as data."""
    call = decode_reply(sse(chunk({"content": "a"}), {"error": {"message": "out of memory"}}), streamed=True)
    assert call.problem == "out of memory"


@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
def test_a_stream_in_every_spelling_of_the_standard(newline: str) -> None:
    """No blank after the colon, comments, other fields, data in several lines, a byte order mark, any line end."""
    first = json.dumps(chunk({"content": "a"}), indent=1).splitlines()
    lines = [
        ": hello",
        "id: 1",
        *(f"data:{line}" for line in first),
        "",
        "retry: 5",
        "event: message",
        f"data:{json.dumps(chunk({'content': 'b'}))}",
        "",
        "data:[DONE]",
        "",
        "data: unread",
        "",
    ]
    body = b"\xef\xbb\xbf" + newline.join(lines).encode()
    call = decode_reply(body, streamed=True, trainable=False)
    assert (call.problem, json.loads(call.choices[0].message)["content"]) == ("", "ab")


def test_a_stream_with_a_legacy_function_call() -> None:
    """Its name and its arguments come in pieces, as a tool call's do."""
    pieces = [{"name": "calc", "arguments": ""}, {"arguments": '{"x"'}, {"arguments": ": 1}"}]
    call = decode_reply(sse(*(chunk({"function_call": piece}) for piece in pieces)), streamed=True, trainable=False)
    assert json.loads(call.choices[0].message)["function_call"] == {"name": "calc", "arguments": '{"x": 1}'}


def _of_prompts(*prompts: Any, **choice: Any) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "text": "x",
            "finish_reason": "stop",
            "token_ids": [7 + index],
            "logprobs": {"token_logprobs": [-0.5]},
            "prompt_token_ids": prompt,
            **choice,
        }
        for index, prompt in enumerate(prompts)
    ]


def _decode_completion(request: dict[str, Any], body: bytes, *, streamed: bool = False) -> Call:
    return decode(CallMeta(*meta(streamed=streamed, path="/v1/completions")), json.dumps(request).encode(), body)


@pytest.mark.parametrize("shape", ["whole", "stream", "stream of the embedded engine"])
@pytest.mark.parametrize("prompt", [["A", "B"], [[1], [2, 3]]])
def test_each_of_several_prompts_has_its_own_completions(shape: str, prompt: list[Any]) -> None:
    """Choices belong to their own prompts, also with n > 1, whole and streamed, through the log and into training."""
    choices = _of_prompts([1], [1], [2, 3], [2, 3])
    if shape == "whole":
        body = json.dumps({"choices": choices}).encode()
    elif shape == "stream":
        body = sse(*({"choices": [choice]} for choice in choices))
    else:
        ids = [choice.pop("prompt_token_ids") for choice in choices]
        body = sse(
            *({"choices": [choice], "prompt_token_ids": each} for choice, each in zip(choices, ids, strict=True))
        )
    call = _decode_completion({"prompt": prompt, "n": 2}, body, streamed=shape != "whole")
    assert call.problem == ""
    rows = transitions(Call.unpack(call.pack()))
    assert [(list(row.prompt_ids), list(row.completion_ids)) for row in rows] == [
        ([1], [7]),
        ([1], [8]),
        ([2, 3], [9]),
        ([2, 3], [10]),
    ]


def test_several_prompts_that_cannot_be_told_apart_are_not_trained_on() -> None:
    """A server that names the ids of one prompt alone would put the second one's completion under the first."""
    choices = _of_prompts(None, None)
    call = _decode_completion(
        {"prompt": ["A", "B"]}, json.dumps({"choices": choices, "prompt_token_ids": [1]}).encode()
    )
    assert "2 prompts" in call.problem
    assert _decode_completion({"prompt": ["A"]}, json.dumps({"choices": _of_prompts([1])}).encode()).problem == ""


def test_a_trained_stream_closed_before_its_first_token_has_no_fault() -> None:
    """The server is not blamed for ids that the reader did not wait for."""
    opening = sse(chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2]), done=False)
    call = decode_reply(opening, streamed=True, status="cancelled")
    assert call.problem == "" and transitions(call) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "HTTP 400: too long"),
        (b'{"error": "too long"}', "HTTP 400: too long"),
        (b'{"detail": "too long"}', "HTTP 400: too long"),
        (b"<html>Bad gateway</html>", "HTTP 400: <html>Bad gateway</html>"),
    ],
)
def test_an_error_reply_has_the_providers_words(body: bytes, told: str) -> None:
    """Whatever its shape, the message is what the provider said, and there are no choices."""
    call = decode_reply(body, http_status=400, status="error", error="BadRequestError")
    assert (call.problem, call.choices) == (told, ())


def test_no_reply_at_all() -> None:
    """A connection that failed leaves the error of the client."""
    assert (
        decode_reply(b"", http_status=0, error="APIConnectionError: refused").problem == "APIConnectionError: refused"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt_token_ids": None}, "no prompt_token_ids"),
        ({"choices": []}, "no choices"),
        ({"choices": [{**reply()["choices"][0], "token_ids": None}]}, "choice 0 has no token_ids"),
        ({"choices": [{**reply()["choices"][0], "logprobs": None}]}, "choice 0 has no log-probabilities"),
        (
            {"choices": [{**reply()["choices"][0], "logprobs": {"content": [{"logprob": -1}]}}]},
            "2 token ids but 1 log-probabilities",
        ),
        (
            {"choices": [{**reply()["choices"][0], "logprobs": {"content": [{"logprob": -1}, {"logprob": None}]}}]},
            "2 token ids but 1 log-probabilities",
        ),
        ({"choices": [{**reply()["choices"][0], "weight_versions": [[0, 5]]}]}, "weight_versions [[0, 5]]"),
        ({"choices": [{**reply()["choices"][0], "token_ids": [2**40, 1]}]}, "token ids cannot be packed"),
    ],
)
def test_a_trainable_call_that_cannot_be_trained_on_says_why(change: dict[str, Any], told: str) -> None:
    """Missing or unequal ids and log-probs are a problem of a trainable call."""
    assert told in decode_reply(reply(**change)).problem


def test_a_call_that_is_not_trainable_needs_no_ids() -> None:
    """What other providers answer is fine as it is."""
    answer = {"id": None, "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": None}]}
    assert decode_reply(answer, trainable=False).problem == ""


def test_what_cannot_be_read_is_kept() -> None:
    """The raw reply stays with the call, with the reason."""
    call = decode_reply(b'{"choices": 7}')
    assert call.reply == b'{"choices": 7}'
    assert call.problem.startswith("the reply cannot be read")


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_call(body: bytes, streamed: bool) -> None:
    """Decoding never raises."""
    assert isinstance(decode_reply(body, streamed=streamed), Call)


_value = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)
_choice = st.dictionaries(st.sampled_from([*reply()["choices"][0], "delta", "text"]), _value)
_field = st.sampled_from(list(reply()))


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_field, _value | st.lists(_choice, max_size=2)), st.booleans())
def test_any_json_is_a_call(answer: dict[str, Any], streamed: bool) -> None:
    """So do replies that look like completions but are not."""
    body = sse(answer) if streamed else json.dumps(answer).encode()
    assert isinstance(decode_reply(body, streamed=streamed), Call)
