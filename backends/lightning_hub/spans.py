"""Calls and spans as the log has them, checked: who sent them may have sent anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec

from lightning_hub.decode import find_problem
from lightning_sdk.call import Call, CallMeta, Span
from lightning_sdk.wire import unpack

#: Unix time in nanoseconds, as OpenTelemetry takes it.
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Times = tuple[_Time, _Time]
_Choice = tuple[int, bytes, str, bytes, bytes, list[tuple[int, int]]]
_Call = tuple[CallMeta, bytes, str, str, bytes, list[_Choice], int, int, str, bytes]
_Span = tuple[str, str, str, str, _Time, _Time, str, str, dict[str, Any], str]


def unpack_event(event: bytes) -> list[Any]:
    """The fields of an event of the log; kind and key alone if they cannot be read."""
    try:
        fields: list[Any] = unpack(event)
    except (ValueError, TypeError, RecursionError):
        return [event[1], event[4:20]]
    return fields


def read_call(fields: Any) -> Call:
    """The call of a CALL event's fields; ValueError if they are none."""
    msgspec.convert(fields, _Call)
    call = Call.unpack(fields)
    msgspec.convert((call.meta.started_ns, call.meta.ended_ns), _Times)
    packed = [call.prompt_ids, *(part for choice in call.choices for part in (choice.token_ids, choice.logprobs))]
    if any(len(part) % 4 for part in packed):
        raise ValueError("token ids or log-probs of a call are cut off")
    missing = call.meta.trainable and not call.problem and find_problem(call)
    return replace(call, problem=missing) if missing else call


def read_span(fields: Any) -> Span:
    """The span of a SPAN event's fields; ValueError if they are none."""
    if isinstance(fields, list) and len(fields) == 9:  # without a trace
        fields = [*fields, ""]
    msgspec.convert(fields, _Span)
    return Span.unpack(fields)
