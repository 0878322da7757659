"""A reply that a test dictates where the small model would not say it: a handoff, a name, a plan.

It stands in for a model that follows instructions. Its ids are made up but travel as the engine's do, so that what is
recorded can still be compared with what went over the wire.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Said:
    """The next reply: some text, or calls of tools as (name, arguments)."""

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()

    def body(self, asked: dict[str, Any]) -> bytes:
        """The whole reply to the chat completions request `asked`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tools:
            message["tool_calls"] = self._calls()
        choice = {"index": 0, "message": message, "finish_reason": self._finish, **self._tokens(asked)}
        return json.dumps(
            {**_head(asked, "chat.completion"), **_prompt(asked), "choices": [choice], "usage": self._usage()}
        ).encode()

    def events(self, asked: dict[str, Any]) -> Iterator[bytes]:
        """The reply as an event stream."""
        head = _head(asked, "chat.completion.chunk")
        delta: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tools:
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(self._calls())]
        first = {"index": 0, "delta": delta, "finish_reason": None, **self._tokens(asked)}
        yield _event({**head, **_prompt(asked), "choices": [first]})
        yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self._finish}]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield _event({**head, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def google_body(self) -> dict[str, Any]:
        """The whole reply of Google's generateContent."""
        parts = [{"text": self.text}] if self.text else []
        parts += [{"functionCall": {"name": name, "args": arguments}} for name, arguments in self.tools]
        count = len(self._ids())
        return {
            "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": count, "totalTokenCount": 7 + count},
            "modelVersion": "gemini-test",
            "responseId": f"google-{next(_numbers)}",
        }

    def google_events(self) -> Iterator[bytes]:
        """The same as an event stream: the text in two pieces."""
        whole = self.google_body()
        half = len(self.text) // 2
        for text in (self.text[:half], self.text[half:]):
            content = {"parts": [{"text": text}], "role": "model"}
            yield _event({**whole, "candidates": [{**whole["candidates"][0], "content": content}]})

    @property
    def _finish(self) -> str:
        return "tool_calls" if self.tools else "stop"

    def _ids(self) -> list[int]:
        return list((self.text + json.dumps(self.tools)).encode())

    def _tokens(self, asked: dict[str, Any]) -> dict[str, Any]:
        ids, made = self._ids(), dict[str, Any]()
        if asked.get("return_token_ids"):
            made["token_ids"] = ids
        if asked.get("logprobs"):
            made["logprobs"] = {
                "content": [{"token": "x", "logprob": -each / 512, "bytes": None, "top_logprobs": []} for each in ids]
            }
        return made

    def _usage(self) -> dict[str, int]:
        count = len(self._ids())
        return {"prompt_tokens": 8, "completion_tokens": count, "total_tokens": 8 + count}

    def _calls(self) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{next(_numbers)}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for name, arguments in self.tools
        ]


def _head(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-scripted-{next(_numbers)}", "object": kind, "created": 1, "model": asked["model"]}


def _prompt(asked: dict[str, Any]) -> dict[str, Any]:
    return {"prompt_token_ids": list(range(1, 9))} if asked.get("return_token_ids") else {}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
