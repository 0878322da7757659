"""Calls and spans as the log has them, checked, because their sender may have sent anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Annotated, Any

import msgspec

from lightning_hub.decoding.replies import find_problem
from lightning_sdk.trace.call import Call, Choice, Span

#: As SQLite can hold it, and OpenTelemetry takes it.
UnixNanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Times = tuple[UnixNanoseconds, UnixNanoseconds]


def read_call(values: Any) -> Call:
    """The call of a CALL event's fields; ValueError if they are none."""
    given = _by_name(Call, values)
    call = msgspec.convert({**given, "choices": [_by_name(Choice, each) for each in given.get("choices", ())]}, Call)
    msgspec.convert((call.meta.started_ns, call.meta.ended_ns), _Times)
    if any(len(run) != 2 for choice in call.choices for run in choice.versions):
        raise ValueError("a run of versions is a version and a number of tokens")
    if any(len(part) % 4 for part in _arrays(call)):
        raise ValueError("token ids or log-probs of a call are cut off")
    missing = call.meta.trainable and not call.problem and find_problem(call)
    return replace(call, problem=missing) if missing else call


def read_span(values: Any) -> Span:
    """The span of a SPAN event's fields; ValueError if they are none."""
    span = msgspec.convert(_by_name(Span, values), Span)
    msgspec.convert((span.started_ns, span.ended_ns), _Times)
    return span


def _by_name(kind: type[Call | Choice | Span], values: list[Any]) -> dict[str, Any]:
    """Values in the order of the fields of `kind`, of which the last ones may be absent, by their names."""
    return dict(zip((each.name for each in fields(kind)), values, strict=False))


def _arrays(call: Call) -> Iterator[bytes]:
    yield call.prompt_ids
    for choice in call.choices:
        yield from (choice.token_ids, choice.logprobs, choice.prompt_ids)
