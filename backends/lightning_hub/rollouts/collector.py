"""The collector: reads a finished rollout back from the log, as calls, spans and rewards."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from lightning_hub.decoding.control_events import read_reward
from lightning_hub.decoding.spans import read_call, read_span
from lightning_hub.rollout import Reward, Rollout
from lightning_hub.rollouts.round_queue import Outcome
from lightning_hub.storage.index import Index
from lightning_sdk.stream import notices
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call, Span, Status


def collect(index: Index, outcome: Outcome) -> Rollout:
    """The rollout of an outcome: what its last attempt sent, nothing of earlier ones, nor what came after the hub had
    ended it."""
    calls: list[Call] = []
    spans: list[Span] = []
    rewards: list[Reward] = []
    status, error, answer = outcome.status, outcome.error, ""
    try:
        for event in index.events(outcome.assignment.key, outcome.until):
            sort_event(event, calls, spans, rewards)
            answer = shown_answer(event) or answer
    except (OSError, ValueError, TypeError, RecursionError) as failure:
        status, error = Status.INFRASTRUCTURE_ERROR, f"its spans cannot be read back: {failure!r}"
    calls.sort(key=lambda call: call.meta.started_ns)
    assignment = outcome.assignment
    return Rollout(
        id=assignment.id,
        task_id=assignment.task_id,
        group=assignment.group,
        mode=assignment.mode,
        attempt=assignment.attempt,
        status=status,
        error=error,
        seconds=outcome.seconds,
        rewards=tuple(rewards),
        calls=tuple(calls),
        spans=tuple(spans),
        answer=answer,
    )


def shown_answer(event: list[Any]) -> str:
    """What an END event shows of the agent's answer; '' for any other event."""
    match event:
        case [Event.END, _, _, _, _, str(output), *_]:
            return output
    return ""


def strays(index: Index, since_ns: int) -> list[Call | Span]:
    """Calls and spans of no rollout that started at `since_ns` (Unix time) or later."""
    calls: list[Call] = []
    spans: list[Span] = []
    for event in index.strays():
        try:
            sort_event(event, calls, spans, [])
        except (ValueError, TypeError):
            continue  # another version's
    return [
        *(call for call in calls if call.meta.started_ns >= since_ns),
        *(span for span in spans if span.started_ns >= since_ns or span.name == notices.OFF),
    ]


def sort_event(event: list[Any], calls: list[Call], spans: list[Span], rewards: list[Reward]) -> None:
    """Add an event to what it is. ValueError for a call that cannot be read: without it nothing can be learned; other
    pieces that cannot are left out."""
    match event:
        case [Event.CALL, _, *fields]:
            calls.append(read_call(*fields or [None]))
        case [Event.SPAN, _, fields]:
            with contextlib.suppress(ValueError, TypeError):
                spans.append(read_span(fields))
        case [Event.REWARD, *_] if (given := read_reward(event)) is not None:
            rewards.append(Reward(given.role, given.name, float(np.float32(given.value)), given.time_ns))
