"""The collector: reads a finished rollout back from the log, as calls, spans and rewards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lightning_hub.decoding.events import DecodedEvent, Unusable, refuse
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.rollouts.round_queue import Outcome
from lightning_hub.storage.index import Index
from lightning_sdk.stream import notices
from lightning_sdk.stream.events import EndEvent, RewardEvent
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call, Span, Status


@dataclass(slots=True)
class Collected:
    """What the events of one attempt hold, in the order of the log."""

    calls: list[Call] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    rewards: list[EarnedReward] = field(default_factory=list)
    answer: str = ""
    """As it is shown to people."""

    def add(self, event: DecodedEvent) -> None:
        """ValueError for a call that cannot be read: without it nothing can be learned. Other pieces that cannot are
        left out."""
        match event:
            case Call():
                self.calls.append(event)
            case Span():
                self.spans.append(event)
            case RewardEvent() if not refuse(event.value, event.role, event.name):
                value = float(np.float32(event.value))
                self.rewards.append(EarnedReward(event.role, event.name, value, event.time_ns, event.why))
            case EndEvent():
                self.answer = event.output or self.answer
            case Unusable(kind=Event.CALL):
                raise ValueError(event.why)

    def calls_in_order(self) -> tuple[Call, ...]:
        """The calls in the order in which they began."""
        return tuple(sorted(self.calls, key=lambda call: call.meta.started_ns))


def collect(index: Index, outcome: Outcome) -> Rollout:
    """The rollout of an outcome: what its last attempt sent, nothing of earlier ones, nor what came after the hub had
    ended it."""
    found = Collected()
    status, error = outcome.status, outcome.error
    try:
        for event in index.events(outcome.assignment.key, outcome.until):
            found.add(event)
    except (OSError, ValueError) as failure:
        status, error = Status.INFRASTRUCTURE_ERROR, f"its spans cannot be read back: {failure!r}"
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
        rewards=tuple(found.rewards),
        calls=found.calls_in_order(),
        spans=tuple(found.spans),
        answer=found.answer,
    )


def strays(index: Index, since_ns: int) -> list[Call | Span]:
    """Calls and spans of no rollout that started at `since_ns` (Unix time) or later."""
    found = [event for event in index.strays() if isinstance(event, Call | Span)]
    return [
        *(each for each in found if isinstance(each, Call) and each.meta.started_ns >= since_ns),
        *(
            each
            for each in found
            if isinstance(each, Span) and (each.started_ns >= since_ns or each.name == notices.OFF)
        ),
    ]
