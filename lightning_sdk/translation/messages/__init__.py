"""Anthropic's Messages API in terms of chat completions, and back.

Counting tokens has no translation: our engines have no endpoint for it, so such a request goes where the agent sends
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_sdk.translation.messages.events import Events
from lightning_sdk.translation.messages.reply import error_body, message
from lightning_sdk.translation.messages.request import chat

__all__ = ["Messages", "error_body", "translate"]


def translate(body: Mapping[str, Any], rollout: str = "") -> Messages:
    """The translation of one request to `/v1/messages`.

    Args:
        rollout: Id of the rollout that asks, '' for none. What a model wrote is given back in its own rollout only.

    Raises:
        Untranslatable: it needs something that chat completions cannot express, such as a server tool or a document.
    """
    return Messages(body, rollout)


class Messages:
    """One request of the Messages API; see `lightning_sdk.translation.Translation`."""

    def __init__(self, body: Mapping[str, Any], rollout: str) -> None:
        self.chat: dict[str, Any] = chat(body, rollout)
        self._rollout = rollout
        self._events = Events(self.chat.get("stop") or (), rollout)

    def reply(self, body: bytes, http_status: int) -> bytes:
        """The engine's whole reply as a Message, its error as Anthropic's error."""
        if http_status >= 400:
            return error_body(body, http_status)
        made = message(body, self.chat.get("stop") or (), self._rollout)
        return json.dumps(made, ensure_ascii=False).encode()

    def feed(self, chunk: bytes) -> bytes:
        return self._events.feed(chunk)

    def end(self) -> bytes:
        return self._events.end()
