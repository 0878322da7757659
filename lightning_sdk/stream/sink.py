"""Where events go: the one stream of this process, or nowhere.

Decorators and seams write here. Nothing here raises into the agent, and with no stream each function returns at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from lightning_sdk.stream.events import BeginEvent, EndEvent, ReplyEvent, RewardEvent, SpanEvent, StreamEvent
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from lightning_sdk.trace.call import CallMeta, Span, Status
from lightning_sdk.trace.scope import RolloutScope

log = logging.getLogger("lightning_sdk")


class Destination(Protocol):
    """What takes events: `lightning_sdk.stream.stream.Stream`, or a list in a test."""

    def put(self, event: tuple[Any, ...], size: int) -> None: ...


#: Run when a rollout begins in this process.
before_rollouts: list[Callable[[], None]] = []

_stream: Destination | None = None
_said: set[str] = set()


def connect(stream: Destination | None) -> None:
    """Send events to `stream` from now on; None: nowhere."""
    global _stream  # noqa: PLW0603 - the one stream of this process
    _stream = stream


def is_listening() -> bool:
    return _stream is not None


def put(event: StreamEvent, size: int) -> None:
    """Hand an event of about `size` bytes to the stream."""
    if _stream is not None:
        try:
            _stream.put(event, size)
        except Exception as error:  # no thread can be started while the interpreter ends, for one
            say_once("put", "lightning: events are lost: %r", error)


def prepare_rollout() -> None:
    """A rollout begins in this process."""
    for act in before_rollouts:
        harmless("preparing a rollout", act)


def send_reply(rollout: RolloutScope | None, meta: CallMeta, request: bytes, reply: bytes) -> None:
    put(ReplyEvent(Event.REPLY, key_of(rollout), meta, request, reply), len(reply) + len(request) + 200)


def send_span(rollout: RolloutScope | None, span: Span, size: int = 300) -> None:
    put(SpanEvent(Event.SPAN, key_of(rollout), span.pack()), size)


def send_reward(
    rollout: RolloutScope | None,
    value: float,
    role: str,
    name: str,
    span_id: str,
    *,
    by_function: bool = False,
    why: str = "",
) -> None:
    if rollout is not None:
        rollout.rewarded = True
    key, now = key_of(rollout), time.time_ns()
    put(RewardEvent(Event.REWARD, key, value, role, name, span_id, now, by_function, why), 120 + len(why))


def send_begin(rollout: RolloutScope, task: dict[str, Any]) -> None:
    put(BeginEvent(Event.BEGIN, rollout.key, rollout.id, task, time.time_ns()), 500)


def send_end(rollout: RolloutScope, status: Status, error: str, output: str, answer: str, unkept: str) -> None:
    put(EndEvent(Event.END, rollout.key, status, error, time.time_ns(), output, answer, unkept), 300 + len(answer))


def key_of(rollout: RolloutScope | None) -> bytes:
    return NO_ROLLOUT if rollout is None else rollout.key


def say_once(key: str, message: str, *values: object, level: int = logging.WARNING) -> None:
    """Log `message` the first time that `key` comes by."""
    if key not in _said:
        _said.add(key)
        log.log(level, message, *values)


def harmless(what: str, action: Callable[[], Any]) -> Any:
    """Run code of ours inside the user's call: an error is logged once and never reaches the agent."""
    try:
        return action()
    except Exception as error:
        say_once(f"harmless {what}", "lightning: %s failed and was skipped: %r", what, error)
        return None
