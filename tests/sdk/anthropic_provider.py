"""Anthropic on loopback, with replies as its documentation shows them. It stands in for a paid API."""

import json
from typing import Any

from tests.sdk.provider import Provider, ProviderHandler, Request

MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {"city": "Köln"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 20},
}
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": {**MESSAGE["usage"], "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me "}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "see."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "toolu_01", "name": "weather", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city": '}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Köln"}'}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 20},
    },
    {"type": "message_stop"},
]


def stream() -> list[bytes]:
    """The events as they go over the wire."""
    return [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in EVENTS]


class AnthropicHandler(ProviderHandler):
    def answer(self, request: Request) -> None:
        if request.body.get("stream"):
            self.send(200, b"".join(stream()), "text/event-stream")
        elif self.path.endswith("count_tokens"):
            self.send(200, {"input_tokens": 5})
        else:
            self.send(200, MESSAGE)

    def refuse(self, status: int) -> None:
        self.send(status, {"type": "error", "error": {"type": "x", "message": "no"}})


class AnthropicProvider(Provider):
    """Answers everything with `MESSAGE`, streamed if asked; `fail` answers the next requests with these statuses."""

    handler = AnthropicHandler
    path = ""
