"""Events: what a hub tells of a run, as it publishes them, as they travel, and as they are shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_sdk.results.diagnosis import Diagnosis
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.results.score import HeldOutScore
from lightning_sdk.trace.structs import read_struct

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """What the hub is doing now, where that takes a while."""

    text: str


@dataclass(frozen=True, slots=True)
class NoticeEvent:
    """Something to know."""

    text: str


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """Something that may need a hand."""

    text: str


@dataclass(frozen=True, slots=True)
class StartedEvent:
    """The model is loaded, and rollouts may run."""

    steps: int
    """Steps in all; 0 for an evaluation."""
    step: int = 0
    """The last one that was done before."""
    model: str = ""
    run: str = ""
    """The run's folder."""
    search: bool = False
    """It looks for texts: its steps are rounds of a search."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A step is done."""

    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceEvent:
    """How long a training takes, as far as is known: after its first rollouts, and after each step."""

    text: str
    seconds: float
    """Of one step; after the first rollouts, without its update. In a search, of an average round of rollouts."""
    left: float
    """Seconds until the run ends; in a search, if it uses all of its budget."""
    agent: float = 0.0
    """Seconds of a step in which the agent worked. 0, as the next two, before the first step is done."""
    engine: float = 0.0
    """Seconds of a step in which the agent waited for a model's reply."""
    learner: float = 0.0
    is_news: bool = False
    """Whether it differs from what was told before."""


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """The held-out tasks were measured."""

    name: str
    """'before', 'after', 'step-N', or 'prompted', which is the score with a prompt that is to be distilled."""
    score: HeldOutScore
    samples: Sequence[RolloutSample] = ()
    """A few of its rollouts, those with the lowest and the highest reward among them."""


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """The last event of a training or an evaluation that finished or was stopped."""

    report: RunReport
    curve: str = ""
    """The reward curve as text, '' where no step was done."""


@dataclass(frozen=True, slots=True)
class CheckedEvent:
    """The last event of a check."""

    diagnosis: Diagnosis
    """What its rollouts showed."""


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """The last event of whatever failed."""

    error: str
    """Name of the class in `lightning_sdk.errors`."""
    text: str


LastEvent = FinishedEvent | CheckedEvent | FailedEvent
Event = StatusEvent | NoticeEvent | WarningEvent | StartedEvent | StepEvent | PaceEvent | EvaluationEvent | LastEvent
Told = NoticeEvent | WarningEvent
"""What is told before the hub is started."""

_NAMES: dict[type[Event], str] = {
    StatusEvent: "status",
    NoticeEvent: "notice",
    WarningEvent: "warning",
    StartedEvent: "started",
    StepEvent: "step",
    PaceEvent: "pace",
    EvaluationEvent: "evaluation",
    FinishedEvent: "finished",
    CheckedEvent: "checked",
    FailedEvent: "failed",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}


def to_message(event: Event) -> dict[str, Any]:
    """The event as plain data, with its 'type'."""
    match event:
        case EvaluationEvent(name, score, samples):
            values = {"name": name, **score.as_dict(), "samples": [asdict(each) for each in samples]}
        case FinishedEvent(report, curve):
            values = {"report": report.as_dict(), "curve": curve}
        case CheckedEvent(diagnosis):
            values = {"diagnosis": diagnosis.as_dict()}
        case FailedEvent(error, text):
            values = {"error": [error, text]}
        case _:
            values = asdict(event)
    return {"type": _NAMES[type(event)], **values}


def read_event(message: Mapping[str, Any]) -> Event | None:
    """The event of a message; None for one that this version does not know, or cannot read, which is logged."""
    kind = _KINDS.get(message.get("type", ""))
    try:
        return None if kind is None else _read(kind, message)
    except (ValueError, TypeError, KeyError, AttributeError):
        _log.warning("an event %r of the hub cannot be read", message.get("type"), exc_info=True)
        return None


def _read(kind: type[Event], message: Mapping[str, Any]) -> Event:
    if kind is EvaluationEvent:
        samples = tuple(read_struct(RolloutSample, each, "a sample") for each in message.get("samples") or ())
        return EvaluationEvent(str(message["name"]), HeldOutScore.from_dict(message), samples)
    if kind is FinishedEvent:
        return FinishedEvent(RunReport.from_dict(message.get("report") or {}), str(message.get("curve") or ""))
    if kind is CheckedEvent:
        return CheckedEvent(Diagnosis.from_dict(message["diagnosis"]))
    if kind is FailedEvent:
        return FailedEvent(*message["error"])
    return read_struct(kind, message, f"the event {message['type']!r}")
