"""One request and its reply, as they went over the wire: what every other record is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Exchange:
    """A request that the wire saw, and the raw reply, which grows while it is streamed."""

    face: str
    """'engine': sent where training sends it; 'provider': sent where the user's client always sent it."""
    method: str
    path: str
    """With the query."""
    headers: list[tuple[str, str]]
    body: bytes
    status: int = 0
    reply: bytes = b""
    """What the client was sent, without transfer encoding."""
    scripted: bool = False
    """Answered by the test and not by the engine."""
    cut: bool = False
    """The client hung up before the end."""

    @property
    def json(self) -> dict[str, Any]:
        """The request's body."""
        return json.loads(self.body)

    @property
    def bearer(self) -> str:
        """The key that came with the request."""
        given = {name.lower(): value for name, value in self.headers}
        return given.get("authorization", "").removeprefix("Bearer ") or given.get("x-api-key", "")

    @property
    def is_streamed(self) -> bool:
        return self.reply.startswith((b"data:", b"event:"))

    @property
    def tokens(self) -> Tokens:
        """The ids and log-probabilities in a reply of the engine, read by the tests' own few lines."""
        return Tokens.read(self.reply)


@dataclass
class Tokens:
    """What a reply says was sampled, by choice."""

    response_id: str = ""
    prompt_ids: list[int] = field(default_factory=list)
    completion_ids: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def read(cls, reply: bytes) -> Tokens:
        """From JSON or an event stream; a last event that was cut off is left out."""
        found = cls()
        for body in _bodies(reply):
            found.response_id = found.response_id or body.get("id") or ""
            found.prompt_ids = found.prompt_ids or body.get("prompt_token_ids") or []
            for choice in body.get("choices") or ():
                index = choice.get("index", 0)
                found.prompt_ids = found.prompt_ids or choice.get("prompt_token_ids") or []
                found.completion_ids.setdefault(index, []).extend(choice.get("token_ids") or ())
                found.logprobs.setdefault(index, []).extend(_logprobs(choice.get("logprobs") or {}))
        return found


def _bodies(reply: bytes) -> list[dict[str, Any]]:
    if reply.lstrip()[:1] == b"{":
        return [json.loads(reply)]
    bodies = []
    for line in reply.splitlines():
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            try:
                bodies.append(json.loads(line[5:]))
            except ValueError:
                break
    return [body for body in bodies if isinstance(body, dict)]


def _logprobs(value: dict[str, Any]) -> list[float]:
    if value.get("content") is not None:
        return [token["logprob"] for token in value["content"]]
    return list(value.get("token_logprobs") or ())
