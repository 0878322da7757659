"""Unasked fields: token ids and log-probs, which only training asked the engine for, are hidden from the agent.

The agent, and every tool that records what its client returns, sees the reply that its provider would give. Otherwise
ids would fill the traces and logs of the user's own tools, and the memory of agents that keep whole replies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_sdk.stream.sink import harmless
from lightning_sdk.translation.sse import DataRewriter

#: Fields of a reply and of its choices that engines send when `return_token_ids` asks for them.
_IDS = ("prompt_token_ids", "token_ids", "weight_versions")
_NAMES = (*(f'"{name}"'.encode() for name in _IDS), b'"logprobs"')


class UnaskedFields:
    """Takes it out of the reply to one request: a `Translation` from chat completions to chat completions."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """`body`: the request as the agent made it."""
        self.chat: dict[str, Any] = dict(body)
        wants_logprobs = body.get("logprobs")
        self._keeps_logprobs = wants_logprobs is not None and wants_logprobs is not False
        self._keeps_ids = bool(body.get("return_token_ids"))
        self._stream = DataRewriter(self._without)

    def reply(self, body: bytes, http_status: int) -> bytes:
        return body if http_status >= 400 else self._without(body)

    def feed(self, chunk: bytes) -> bytes:
        return self._stream.feed(chunk)

    def end(self) -> bytes:
        return self._stream.end()

    def _without(self, text: bytes) -> bytes:
        """The JSON `text` without it; the very text if there is nothing to take out, or if it cannot be read."""
        if not any(name in text for name in _NAMES):
            return text
        less: bytes | None = harmless("hiding what training asks for", lambda: self._less(text))
        return text if less is None else less

    def _less(self, text: bytes) -> bytes:
        reply = json.loads(text)
        for part in (reply, *(reply.get("choices") or ())):
            if not self._keeps_ids:
                for name in _IDS:
                    part.pop(name, None)
            if not self._keeps_logprobs and part.get("logprobs") is not None:
                part["logprobs"] = None
        return json.dumps(reply, separators=(",", ":")).encode()
