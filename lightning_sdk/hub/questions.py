"""Questions: what runners, and the process that started a hub, ask it while a run is under way.

`HubClient.ask` sends a question by its name with the fields of its class; `wait` is how many seconds the hub may take
until there is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LeaseQuestion:
    """'lease': rollouts to run."""

    runner: str
    places: int
    """How many at the most."""
    watched: bool = False
    """Whether somebody sees when the runner's process ends."""
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class ReleaseQuestion:
    """'release': the runner gives back what it has not ended, and goes."""

    runner: str
    exit_code: int | None = None
    """That of its process, where that has died."""


@dataclass(frozen=True, slots=True)
class JoinQuestion:
    """'join': let a runner in that was started elsewhere."""

    runner: str
    name: str
    """For people."""
    identity: Mapping[str, Any]
    """An `AgentIdentity`: what it would run."""


@dataclass(frozen=True, slots=True)
class OverQuestion:
    """'over': whether the training that a runner joined has ended, and how."""

    runner: str
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class DisbandQuestion:
    """'disband': tell those who joined that it has ended."""

    status: str = ""
    """'stopped' or 'failed'; '' where the hub knows itself how it ended."""
    error: str = ""
    wait: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimQuestion:
    """'claim': whether a request to a model may leave. The answer is '' or why not."""

    rollout: str
    """Id."""
    call: str
    """Id."""
    attempt: int
    """Number of the request among those of its call, from 1."""
    refused: bool
    """Whether the attempt before was answered with an error."""
    model: str
    input_tokens: int
    """The most that it can have."""
    reply_tokens: int
    """The most that the model may write; 0: the request sets no limit."""
    replies: int = 1
    unbounded: str = ""
    """What in the request makes it impossible to say how long it is; '' if nothing does."""


@dataclass(frozen=True, slots=True)
class WatchQuestion:
    """'watch': events after the one with this number."""

    after: int = 0
    wait: float = 0.0
