"""A call: one request to a model and what came back, as plain data. Also `Span`, for what is not a call."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Status(StrEnum):
    """How a rollout ended. Only `ok` is trained on unless the user says otherwise."""

    OK = "ok"
    AGENT_ERROR = "agent_error"
    """The agent raised."""
    REWARD_ERROR = "reward_error"
    """The reward raised, or gave something that is not a finite number."""
    INFRASTRUCTURE_ERROR = "infrastructure_error"
    """Something of ours failed: a runner died, the engine refused a connection. Retried."""
    TIMEOUT = "timeout"
    """The rollout took longer than its limit."""


class CallMeta(NamedTuple):
    """What the seam knows about a call without reading its reply. On the wire it is one list, in this order."""

    id: str
    """Id of the call, 16 hex digits, like OpenTelemetry's span ids."""
    parent: str
    """Span id of the enclosing span, '' at the top."""
    role: str
    """Role that the call belongs to, '' if none is known."""
    trainable: bool
    """Whether the call was sent to the engine of the model in training."""
    started_ns: int
    """Unix time in nanoseconds."""
    ended_ns: int
    status: str
    """How the call ended: 'ok', 'error', or 'cancelled' if the reader closed the stream early."""
    error: str
    """Class and message of the exception, '' if there was none."""
    http_status: int
    """HTTP status of the reply, 0 if there was none."""
    streamed: bool
    path: str
    """Path of the request, such as /v1/chat/completions."""
    framework: str
    """The seam that caught it, such as 'openai'."""
    trace: str = ""
    """Trace of a call outside rollouts, 32 hex digits, '' if no span encloses it. Inside, the rollout's id is the
    trace."""
    candidate: str = ""
    """Id of the candidate whose texts were to be put into the request, '' if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One completion of a call."""

    index: int
    message: bytes
    """The assistant message as JSON; for text completions {"content": text}."""
    finish_reason: str
    token_ids: bytes
    """Sampled ids, packed int32; empty when the server sent none."""
    logprobs: bytes
    """Log-probability of each sampled id under the distribution it was drawn from, packed float32."""
    versions: list[list[int]] = field(default_factory=list)
    """Runs of [model version, number of tokens], in order."""
    prompt_ids: bytes = b""
    """Ids of the prompt of this choice, packed int32, in a call with several prompts; empty: the call's prompt_ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call, decoded from the raw reply."""

    meta: CallMeta
    request: bytes
    """The JSON body as it was sent."""
    response_id: str
    model: str
    prompt_ids: bytes
    """Ids of the prompt, packed int32; empty if the server sent none."""
    choices: tuple[Choice, ...]
    input_tokens: int
    output_tokens: int
    problem: str = ""
    """Why ids or log-probs are missing or cannot be used, '' if they are complete."""
    reply: bytes = b""
    """The raw reply, kept only when it could not be decoded."""
    cached_tokens: int = 0
    """Of `input_tokens`, those that the provider read from its cache, where the reply says so."""
    cache_written_tokens: int = 0
    """Of `input_tokens`, those that the provider wrote to its cache for an additional charge."""

    def pack(self) -> list[Any]:
        """The call as a msgpack-ready list, in the order of the fields; `unpack` undoes it."""
        choices = [_values(choice) for choice in self.choices]
        return [
            list(self.meta) if name == "meta" else choices if name == "choices" else getattr(self, name)
            for name in self.__slots__
        ]

    @classmethod
    def unpack(cls, fields: list[Any]) -> Call:
        values = _by_name(cls, fields)
        choices = tuple(Choice(**_by_name(Choice, each)) for each in values.pop("choices"))
        return cls(**{**values, "meta": CallMeta(*values["meta"]), "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of a rollout that is not a call: an agent's turn, a tool."""

    id: str
    parent: str
    name: str
    role: str
    started_ns: int
    ended_ns: int
    status: str
    error: str
    attributes: dict[str, Any] = field(default_factory=dict)
    """OpenTelemetry attributes, GenAI names where there is one."""
    trace: str = ""
    """Same as `CallMeta.trace`."""

    def pack(self) -> list[Any]:
        return _values(self)

    @classmethod
    def unpack(cls, fields: list[Any]) -> Span:
        return cls(**_by_name(cls, fields))


def _values(record: Choice | Span) -> list[Any]:
    return [getattr(record, name) for name in record.__slots__]


def _by_name(kind: type[Call | Choice | Span], values: list[Any]) -> dict[str, Any]:
    """The values under the names of the fields; the last ones may be absent where they have defaults."""
    if len(values) > len(kind.__slots__):
        raise ValueError(f"a {kind.__name__} of {len(values)} fields")
    return dict(zip(kind.__slots__, values, strict=False))


def root_span_id(key: bytes) -> str:
    """Id of the span that stands for an attempt at a rollout as a whole, 16 hex digits, from the attempt's key.

    It is never sent: the agent's process and the hub both compute it, and each attempt has its own.
    """
    return hashlib.blake2b(key, digest_size=8).hexdigest()
