"""Control events: what REWARD, BEGIN and END say, checked before it is used.

Anyone with the key can send anything. What `read_control` returns always fits the store's columns; an event that does
not fit is `Unusable`, with the reason.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import msgspec

from lightning_sdk.stream.plain_data import NotPlain, plain_object
from lightning_sdk.stream.wire import MAX_TASK_BYTES, Event
from lightning_sdk.trace.call import Status

_LARGEST = 3.4028234663852886e38  # float32
#: Bytes of one control event: a task, or an answer and an error. As JSON it stays below SQLite's limit of 1e9.
_MAX_BYTES = 2 * MAX_TASK_BYTES
_SHOWN = 200
_ERROR = 20_000

_Name = Annotated[str, msgspec.Meta(max_length=1000)]
#: Unix time in nanoseconds, as SQLite can hold it.
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Key = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class RewardEvent(msgspec.Struct, array_like=True, frozen=True, tag=int(Event.REWARD)):
    """A number that was given to a rollout, or what somebody took for one."""

    key: _Key
    value: Any
    role: _Name
    name: _Name
    span: _Name
    time_ns: _Time
    by_function: bool | None = None
    """None from a process that does not say."""


class BeginEvent(msgspec.Struct, array_like=True, frozen=True, tag=int(Event.BEGIN)):
    """The beginning of a rollout that no lease created."""

    key: _Key
    rollout: _Name
    task: Any
    time_ns: _Time
    task_json: str = ""
    """The task as the store keeps it. Whatever was sent in this place does not count."""


class EndEvent(msgspec.Struct, array_like=True, frozen=True, tag=int(Event.END)):
    """The end of a rollout."""

    key: _Key
    status: Status
    error: str
    time_ns: _Time
    output: str
    answer: Any = ""
    unkept: Any = ""


class Unusable(msgspec.Struct, array_like=True, frozen=True):
    """An event that nothing can be made of."""

    why: str


Control = RewardEvent | BeginEvent | EndEvent
_decode = msgspec.msgpack.Decoder(Control).decode


def read_control(event: bytes | memoryview) -> Control | Unusable:
    """What one event of kind REWARD, BEGIN or END says. Never raises."""
    if len(event) > _MAX_BYTES:
        return Unusable(f"it has {len(event) / 2**20:.0f} MiB, more than the limit of {_MAX_BYTES // 2**20} MiB")
    try:
        found = _decode(event)
        if isinstance(found, BeginEvent):
            return msgspec.structs.replace(found, task_json=_task_json(found.task))
        if isinstance(found, EndEvent):
            return msgspec.structs.replace(found, error=found.error[:_ERROR])
    except RecursionError:
        return Unusable("it is nested too deeply")
    except Exception as error:  # whatever it holds, it is one event
        return Unusable(str(error)[:_SHOWN] or type(error).__name__)
    return found


def read_reward(event: list[Any]) -> RewardEvent | None:
    """The reward of an unpacked REWARD event; None if it does not count."""
    try:
        given = msgspec.convert(event, RewardEvent)
    except (ValueError, TypeError):
        return None
    return None if refuse(given.value, given.role, given.name) else given


def _task_json(task: Any) -> str:
    if not isinstance(task, dict):
        raise ValueError(f"its task is {_preview(task)}, and a task is a dict")
    try:
        return json.dumps(plain_object(task))
    except NotPlain as error:
        raise ValueError(f"its task{error}") from None


def refuse(value: Any, role: Any, name: Any) -> str:
    """Why a reward is not one, '' if it is."""
    number = isinstance(value, int | float)
    if number and math.isfinite(value) and abs(value) <= _LARGEST:
        return ""
    whose = f" of role {role!r}" if role else ""
    kind = "" if number else f" ({type(value).__name__})"
    return f"reward {name!r}{whose} is {_preview(value)}{kind}: a reward has to be a finite number"


def _preview(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "a value nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
