"""Events, decoded and checked: one decoder for every kind, in batches that arrive and in the log.

Anyone with the key can send anything. What `decode_event` returns always has the types that it states and fits the
store's columns; an event that does not fit is `Unusable`, with the reason.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, get_args, get_type_hints

import msgspec

from lightning_hub.decoding.spans import UnixNanoseconds, read_call, read_span
from lightning_sdk.stream.events import (
    MAX_REASON_CHARACTERS,
    BeginEvent,
    CallEvent,
    EndEvent,
    ReplyEvent,
    RewardEvent,
    SpanEvent,
    StreamEvent,
)
from lightning_sdk.stream.plain_data import NotPlain, plain_object
from lightning_sdk.stream.wire import MAX_TASK_BYTES, Event
from lightning_sdk.trace.call import Call, Span, Status

_LARGEST = 3.4028234663852886e38  # float32
#: Bytes of one control event: a task, or an answer and an error. As JSON it stays below SQLite's limit of 1e9.
_MAX_CONTROL_BYTES = 2 * MAX_TASK_BYTES
_PREVIEW_CHARACTERS = 200
_ERROR_CHARACTERS = 20_000
_ANSWER_CHARACTERS = 1_000_000
_UNKEPT_CHARACTERS = 2000
#: The first of the kinds that the index itself reads: rewards, beginnings and ends.
FIRST_CONTROL = int(Event.REWARD)
_END: Final = Event.END


class Begin(NamedTuple):
    """A BEGIN event whose task can be stored."""

    key: bytes
    rollout: str
    task: str
    """As JSON."""
    time_ns: int


class Unusable(NamedTuple):
    """An event that nothing can be made of."""

    kind: int
    why: str


DecodedEvent = ReplyEvent | Call | Span | RewardEvent | Begin | EndEvent | Unusable

_Key = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Name = Annotated[str, msgspec.Meta(max_length=1000)]
#: What the hub demands of fields, if that differs from the type that the SDK sends; `Any`: checked further down.
_CHECKS: dict[str, Any] = {
    "key": _Key,
    "rollout": _Name,
    "role": _Name,
    "name": _Name,
    "span": _Name,
    "time_ns": UnixNanoseconds,
    "task": Any,
    "answer": Any,
    "unkept": Any,
    "why": Any,
}


def decode_event(event: bytes | memoryview) -> DecodedEvent:
    """What one packed event says. Never raises."""
    kind = event[1]
    if kind >= FIRST_CONTROL and len(event) > _MAX_CONTROL_BYTES:
        most = _MAX_CONTROL_BYTES // 2**20
        return Unusable(kind, f"it has {len(event) / 2**20:.0f} MiB, more than the limit of {most} MiB")
    try:
        found = _decode(event)
        return _MAKERS[type(found)](*_values(found))
    except RecursionError:
        return Unusable(kind, "it is nested too deeply")
    except Exception as error:  # whatever it holds, it is one event
        return Unusable(kind, str(error)[:_PREVIEW_CHARACTERS] or type(error).__name__)


def refuse(value: Any, role: Any, name: Any) -> str:
    """Why a reward is not one, '' if it is."""
    number = isinstance(value, int | float)
    if number and math.isfinite(value) and abs(value) <= _LARGEST:
        return ""
    whose = f" of role {role!r}" if role else ""
    kind = "" if number else f" ({type(value).__name__})"
    return f"reward {name!r}{whose} is {_preview(value)}{kind}: a reward has to be a finite number"


def _reward(*values: Any) -> RewardEvent:
    """A reason that is no text, or too long, is no reason to lose the number."""
    event = RewardEvent(Event.REWARD, *values)
    return event._replace(why=event.why[:MAX_REASON_CHARACTERS] if isinstance(event.why, str) else "")


def _begin(key: bytes, rollout: str, task: Any, time_ns: int) -> Begin:
    if not isinstance(task, dict):
        raise ValueError(f"its task is {_preview(task)}, and a task is a dict")
    try:
        return Begin(key, rollout, json.dumps(plain_object(task)), time_ns)
    except NotPlain as error:
        raise ValueError(f"its task{error}") from None


def _end(key: bytes, status: Status, error: str, time_ns: int, output: str, answer: Any, unkept: Any) -> EndEvent:
    if isinstance(answer, str) and 0 < len(answer) <= _ANSWER_CHARACTERS:
        unkept = ""
    else:
        answer, unkept = "", str(unkept)[:_UNKEPT_CHARACTERS] or "its process sent none that could be kept"
    return EndEvent(_END, key, status, error[:_ERROR_CHARACTERS], time_ns, output, answer, unkept)


def _preview(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "a value nested too deeply"
    return text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}..."


def _struct_of(event: type[StreamEvent]) -> type[msgspec.Struct]:
    """The struct that events of a kind are decoded into: the SDK's fields in their order, with the hub's checks.

    Further fields at the end, of a newer version, are ignored, except in calls and spans.
    """
    hints, defaults = get_type_hints(event), event._field_defaults
    [kind] = get_args(hints["kind"])
    fields = [
        (name, _CHECKS.get(name, hints[name]), *([defaults[name]] if name in defaults else []))
        for name in event._fields[1:]
    ]
    return msgspec.defstruct(
        event.__name__, fields, array_like=True, frozen=True, tag=int(kind), forbid_unknown_fields=kind < FIRST_CONTROL
    )


_KINDS: dict[type[StreamEvent], Callable[..., DecodedEvent]] = {
    ReplyEvent: functools.partial(ReplyEvent, Event.REPLY),
    CallEvent: lambda key, fields: read_call(fields),
    SpanEvent: lambda key, fields: read_span(fields),
    RewardEvent: _reward,
    BeginEvent: _begin,
    EndEvent: _end,
}
#: For each struct, what is called with its fields.
_MAKERS = {_struct_of(event): make for event, make in _KINDS.items()}
_values = msgspec.structs.astuple
_decode = msgspec.msgpack.Decoder(functools.reduce(operator.or_, _MAKERS)).decode
