"""OpenAI's Responses API in terms of chat completions: the request, the whole reply, and every event of a stream.

Dropped, because no answer depends on it: metadata, user, safety_identifier, service_tier, the prompt_cache_ fields,
max_tool_calls (it counts tools that run at the provider), truncation (an input that is too long is an error that says
so), reasoning.summary, labels of items (ids, status, phase), and reasoning that only its provider can decrypt.
Everything else without an equivalent raises `Untranslatable`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightning_sdk.translation.responses.items import messages_of
from lightning_sdk.translation.responses.memory import memory
from lightning_sdk.translation.responses.output import Output
from lightning_sdk.translation.responses.request import chat_of, read
from lightning_sdk.translation.responses.response import Envelope, new_id
from lightning_sdk.translation.sse import DONE, EventReader

__all__ = ["ResponsesTranslation", "translate"]


def translate(body: Mapping[str, Any], rollout: str = "") -> ResponsesTranslation:
    """The translation of one request to `/responses`.

    Args:
        rollout: Id of the rollout that asks. Nothing depends on it: the ids that are remembered here are made here.

    Raises:
        Untranslatable: the request needs something that chat completions cannot express; the message says what to type.
    """
    return ResponsesTranslation(read(body))


class ResponsesTranslation:
    """One call of the Responses API, on its way to chat completions and back. See `Translation`."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.id = new_id()
        """Id of the response that will be made."""
        self._before = memory.conversation(body.get("previous_response_id"))
        self._own = messages_of(body.get("input"), memory.item)
        self.chat: dict[str, Any] = chat_of(body, [*self._before, *self._own])
        self._keep = body.get("store") is not False
        self._output = Output(Envelope(self.id, body), logprobs="message.output_text.logprobs" in body["include"])
        self._events = EventReader()

    def reply(self, body: bytes, http_status: int) -> bytes:
        """The engine's whole reply as a response, or its error as OpenAI's."""
        parsed = _object(body)
        if http_status >= 400:
            return json.dumps(_error(parsed, body, http_status)).encode()
        if not (parsed and parsed.get("choices")):
            self._output.fail(_error(parsed, body, http_status)["error"]["message"])
        else:
            self._output.start(parsed)
            self._output.choice({**parsed["choices"][0], "delta": parsed["choices"][0].get("message") or {}})
            self._output.usage(parsed.get("usage"))
            self._finish()
        self._output.take()
        return json.dumps(self._output.response(), ensure_ascii=False).encode()

    def feed(self, chunk: bytes) -> bytes:
        """Events for some more bytes of the engine's stream."""
        for data in self._events.feed(chunk):
            self._read(data)
        return self._output.take()

    def end(self) -> bytes:
        """Events that are left when the engine's stream has ended, a failure if it broke off."""
        for data in self._events.end():
            self._read(data)
        if not self._output.ended:
            if self._output.finish_reason:
                self._finish()
            else:
                self._output.fail("the engine's stream broke off before the completion was whole")
        return self._output.take()

    def _read(self, data: bytes) -> None:
        if self._output.ended:
            return
        if data == DONE:
            self._finish()
        elif chunk := _object(data):
            if chunk.get("error"):
                self._output.fail(_error(chunk, data, 0)["error"]["message"])
                return
            self._output.start(chunk)
            for choice in (chunk.get("choices") or [])[:1]:
                self._output.choice(choice)
            self._output.usage(chunk.get("usage"))

    def _finish(self) -> None:
        self._output.finish()
        if self._keep and self._output.status in ("completed", "incomplete"):
            memory.remember(self.id, self._before, self._own, self._output.items())


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(data)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _error(parsed: dict[str, Any] | None, body: bytes, http_status: int) -> dict[str, Any]:
    """An error of the engine in OpenAI's shape, whichever of the usual shapes it has."""
    error = (parsed or {}).get("error") or (parsed or {}).get("detail") or parsed
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        known = {name: error.get(name) for name in ("param", "code")}
        return {"error": {"message": error["message"], "type": error.get("type") or "server_error", **known}}
    text = error if isinstance(error, str) else body[:500].decode(errors="replace").strip()
    status = f" (HTTP {http_status})" if http_status else ""
    message = f"the engine answered{status} with something that is not a completion: {text or 'nothing'}"
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
