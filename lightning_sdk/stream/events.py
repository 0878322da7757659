"""The events of a stream: what each kind holds, in the order in which its fields travel.

An event is packed as the array of its fields. Only this module knows the order: senders create these tuples, and the
hub derives its decoder from them (`lightning_hub.decoding.events`). Fields with a default come last and may be missing,
as they are in events of earlier versions.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import CallMeta, Status

#: Characters of the reason of a reward, at most.
MAX_REASON_CHARACTERS = 2000


class ReplyEvent(NamedTuple):
    """A call as the seam saw it. The hub decodes it into a `CallEvent` before it writes it down."""

    kind: Literal[Event.REPLY]
    key: bytes
    """The rollout's, 16 bytes, as in every event; `NO_ROLLOUT` outside of rollouts."""
    meta: CallMeta
    request: bytes
    """The body as it was sent."""
    reply: bytes
    """JSON, or server-sent events if it was streamed."""


class CallEvent(NamedTuple):
    """A call whose reply has been decoded."""

    kind: Literal[Event.CALL]
    key: bytes
    fields: list[Any]
    """`Call.pack()`."""


class SpanEvent(NamedTuple):
    """Any span that is not a call."""

    kind: Literal[Event.SPAN]
    key: bytes
    fields: list[Any]
    """`Span.pack()`."""


class RewardEvent(NamedTuple):
    """A number that was given to a rollout."""

    kind: Literal[Event.REWARD]
    key: bytes
    value: Any
    """A number; the hub refuses everything else."""
    role: str
    """'' for the whole rollout."""
    name: str
    span: str
    """Id of the span that it was given in."""
    time_ns: int
    """Unix time, as in every event."""
    by_function: bool | None = None
    """Whether a reward function gave it, whose numbers a re-scoring replaces; None: the process did not say."""
    why: str = ""
    """Its reason in words, '' if none was given. Nothing is computed from it."""


class BeginEvent(NamedTuple):
    """The beginning of a rollout that no lease created."""

    kind: Literal[Event.BEGIN]
    key: bytes
    rollout: str
    """Its id, 32 hex digits."""
    task: dict[str, Any]
    time_ns: int


class EndEvent(NamedTuple):
    """The end of a rollout."""

    kind: Literal[Event.END]
    key: bytes
    status: Status
    error: str
    time_ns: int
    output: str
    """The answer as it is shown to people."""
    answer: str = ""
    """As JSON; '' if it was not kept."""
    unkept: str = ""
    """Why it was not."""


StreamEvent = ReplyEvent | CallEvent | SpanEvent | RewardEvent | BeginEvent | EndEvent
