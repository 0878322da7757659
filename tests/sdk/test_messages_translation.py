"""Anthropic's Messages API in terms of chat completions: requests, whole replies and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.messages import error_body, translate

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}


def chat(**fields: Any) -> dict[str, Any]:
    return translate({"model": "claude-x", "max_tokens": 9, "messages": HELLO, **fields}).chat


def completion(message: dict[str, Any], finish: str = "stop", **choice: Any) -> bytes:
    said = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    return json.dumps({"id": "chatcmpl-1", "model": "policy", "choices": [said], "usage": usage}).encode()


def call(arguments: str, number: int = 0, name: str = "weather") -> dict[str, Any]:
    return {
        "index": number,
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def reply_to(body: bytes, **fields: Any) -> dict[str, Any]:
    request = {"model": "claude-x", "max_tokens": 9, "messages": HELLO, **fields}
    return json.loads(translate(request).reply(body, 200))


# --- requests


def test_plain_request() -> None:
    """Fields of the same meaning keep their value under chat completions' name, and nothing else is sent."""
    assert chat(
        system="be brief",
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        tool_choice=None,
        service_tier="auto",
    ) == {
        "model": "claude-x",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["END"],
        "user": "u1",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    }


def test_streamed_request_asks_for_usage() -> None:
    """Anthropic tells the usage of every stream; chat completions want to be asked."""
    assert chat(stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in chat()


def test_blocks_of_text() -> None:
    """One block of text is that text, several stay apart; cache_control changes no answer and is dropped."""
    one = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    two = [*one, {"type": "text", "text": "b"}]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(system=one)["messages"][0] == {"role": "system", "content": "a"}
    assert chat(system=two)["messages"][0]["content"] == parts
    assert chat(messages=[{"role": "user", "content": two}])["messages"][0]["content"] == parts


def test_images() -> None:
    """An image is an image_url part: its data, or its address."""
    data = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content = [
        {"type": "image", "source": data},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "text", "text": "what is it?"},
    ]
    assert chat(messages=[{"role": "user", "content": content}])["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "text", "text": "what is it?"},
    ]


def test_tool_turns() -> None:
    """Calls of tools, their results, results that are errors, and what the user says beside them."""
    messages = [
        *HELLO,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Köln"}},
                {"type": "tool_use", "id": "t2", "name": "weather", "input": {}},
                {"type": "tool_use", "id": "t3", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no such city", "is_error": True},
                {"type": "tool_result", "tool_use_id": "t3"},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    assert chat(messages=messages)["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}},
                {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                {"id": "t3", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "rain"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such city"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "and?"},
    ]


def test_tools() -> None:
    """A tool of the user's own is a function with its schema."""
    function = {"name": "weather", "description": "Of a city.", "parameters": WEATHER["input_schema"]}
    assert chat(tools=[WEATHER])["tools"] == [{"type": "function", "function": function}]
    assert "tools" not in chat(tools=[])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "w"}, {"tool_choice": {"type": "function", "function": {"name": "w"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every choice has its word."""
    assert chat(tool_choice=choice).items() >= expected.items()


def test_output_config() -> None:
    """A schema for the answer, and how hard to think, have words; thinking that is off needs none."""
    schema = {"type": "object"}
    new = chat(
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        thinking={"type": "disabled"},
    )
    assert new["reasoning_effort"] == "low"
    assert new["response_format"]["json_schema"]["schema"] == schema


def test_answer_that_is_begun() -> None:
    """A last message of the assistant is gone on with, as Anthropic does; engines have to be told."""
    new = chat(messages=[*HELLO, {"role": "assistant", "content": "The answer is ("}])
    assert (new["continue_final_message"], new["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers"),
        ({"container": "c1"}, "container"),
        ({"tool_choice": {"type": "other"}}, "tool_choice"),
        ({"metadata": {"team": "x"}}, "metadata"),
        ({"output_config": {"effort": "max"}}, "output_config.effort"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
            "messages[0].content[0]",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].source",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}
                        ],
                    }
                ]
            },
            "messages[0].content[0].content[0]",
        ),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "nobody", "content": ""}]}, "messages[0].role"),
    ],
)
def test_no_equivalent(fields: dict[str, Any], named: str) -> None:
    """What has no word is named with its place and value, and never dropped."""
    with pytest.raises(Untranslatable) as error:
        chat(**fields)
    assert str(error.value).startswith(f"{named}=") and "; " in str(error.value)


# --- whole replies


def test_whole_reply() -> None:
    """A chat completion as a Message; the cached part of the prompt is counted apart."""
    assert reply_to(completion({"content": "hi"})) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "policy",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
        },
    }


@pytest.mark.parametrize(
    ("finish", "choice", "reason", "sequence"),
    [
        ("stop", {}, "end_turn", None),
        ("length", {}, "max_tokens", None),
        ("stop", {"stop_reason": "END"}, "stop_sequence", "END"),
        ("stop", {"stop_reason": 151645}, "end_turn", None),
        ("content_filter", {}, "refusal", None),
    ],
)
def test_stop_reasons(finish: str, choice: dict[str, Any], reason: str, sequence: str | None) -> None:
    """Why it stopped; vLLM tells which stop string it met in an additional field."""
    message = reply_to(completion({"content": "x"}, finish, **choice), stop_sequences=["END"])
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_reply_with_tools_and_thoughts() -> None:
    """Thoughts, text and calls become blocks in that order, and the message waits for the tools."""
    message = reply_to(
        completion(
            {
                "content": "Looking.",
                "reasoning_content": "hm",
                "tool_calls": [
                    call('{"city": "Rome"}'),
                    call("", 1),
                    call("{broken", 2),
                ],
            },
            "tool_calls",
        )
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"arguments": "{broken"}},
    ]
    assert message["stop_reason"] == "tool_use"


def test_arguments_come_back_as_they_were_written() -> None:
    """The model's own text of a call is sent back, so that the next prompt begins with what it sampled."""
    written = '{"city":"Rome",  "days":3}'
    message = reply_to(completion({"content": None, "tool_calls": [call(written, 41)]}, "tool_calls"))
    again = [*HELLO, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "go on"}]
    assert chat(messages=again)["messages"][1]["tool_calls"][0]["function"]["arguments"] == written
    message["content"][0]["input"]["city"] = "Oslo"  # the agent may have thought better of it
    assert json.loads(chat(messages=again)["messages"][1]["tool_calls"][0]["function"]["arguments"])["city"] == "Oslo"


@pytest.mark.parametrize("streamed", [False, True])
def test_arguments_come_back_in_their_own_rollout(streamed: bool) -> None:
    """Rollouts, and calls of one rollout, have what each of them wrote, also where a server gives all of them one id.

    Some servers count calls from 0 in each conversation.
    """
    written = [
        ("first", '{"city":"Rome"}'),
        ("second", '{ "city" : "Rome" }'),
        ("second", '{"city":  "Oslo"}'),
        ("", '{"city": "Rome" }'),
    ]
    for rollout, arguments in written:
        translation = translate({"messages": HELLO, "stream": streamed}, rollout)
        if streamed:
            delta = {"index": 0, "delta": {"tool_calls": [call(arguments)]}, "finish_reason": "tool_calls"}
            translation.feed(b"data: " + json.dumps({"id": "1", "choices": [delta]}).encode() + b"\n\n")
            translation.end()
        else:
            translation.reply(completion({"content": None, "tool_calls": [call(arguments)]}, "tool_calls"), 200)
    for rollout, arguments in written:
        used = {"type": "tool_use", "id": "call_0", "name": "weather", "input": json.loads(arguments)}
        again = translate({"messages": [*HELLO, {"role": "assistant", "content": [used]}]}, rollout).chat
        assert again["messages"][1]["tool_calls"][0]["function"]["arguments"] == arguments


def test_reply_that_is_none() -> None:
    """A reply without choices is an error that shows it."""
    with pytest.raises(Untranslatable, match="not a chat completion"):
        reply_to(b'{"choices": []}')


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors(status: int, kind: str) -> None:
    """The status decides the type; the engine's words are kept."""
    body = json.dumps({"error": {"message": "no", "type": "x", "code": "y"}}).encode()
    expected = {"type": "error", "error": {"type": kind, "message": "no"}}
    assert json.loads(translate({"messages": HELLO}).reply(body, status)) == expected
    assert json.loads(error_body(b"no", status)) == expected
