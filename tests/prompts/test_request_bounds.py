"""The most that a request can take is read from its body, in every protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_sdk.capture.request_bounds import bound_request

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def bounds(body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    return bound_request(path, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        ("/v1/chat/completions", {**CHAT, "max_tokens": 7}, 7),
        ("/v1/chat/completions", {**CHAT, "max_completion_tokens": 7, "n": 3}, 21),
        ("/v1/responses", {"model": "m", "input": "hello", "max_output_tokens": 7}, 7),
        ("/v1/messages", {**CHAT, "max_tokens": 7}, 7),
        ("/v1beta/models/m:generateContent", {"contents": [], "generationConfig": {"maxOutputTokens": 7}}, 7),
        ("/model/m/converse", {"messages": [], "inferenceConfig": {"maxTokens": 7}}, 7),
        ("/v1/chat/completions", CHAT, 0),
        ("/v1/chat/completions", {**CHAT, "max_tokens": True}, 0),
    ],
)
def test_the_longest_reply_is_what_the_request_allows(path: str, body: dict[str, Any], reply: int) -> None:
    found = bounds(body, path)
    assert (found.model, found.reply_tokens, found.unbounded) == ("m", reply, "")


def test_a_text_has_no_more_tokens_than_bytes() -> None:
    """With what templates and providers add to it."""
    plain = bounds({**CHAT, "messages": [{"role": "user", "content": "é" * 1000}]})
    assert plain.input_tokens > 2000
    assert bounds({**CHAT, "tools": [{}]}).input_tokens > bounds(CHAT).input_tokens + 500


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "go on", "previous_response_id": "r1"},
        {"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f1"}]}]},
        {"model": "m", "messages": [{"role": "user", "content": [{"image_url": {"url": "https://x/y.png"}}]}]},
    ],
)
def test_what_a_request_only_refers_to_has_no_bound(body: dict[str, Any]) -> None:
    assert "whose length the request does not show" in bounds(body).unbounded


def test_a_body_that_cannot_be_read_has_no_bound() -> None:
    assert bound_request("/v1/messages", b"").unbounded == "a body that is not a JSON object"
