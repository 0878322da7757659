"""Joining: what a remote runner and the hub that it joins tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """What tells two agents apart. None: that is not known, so anybody may join."""

    agent: str | None = None
    """Its name."""
    rewards: Sequence[str] | None = None
    """Names of its reward functions, in order."""
    source: str = ""
    """A digest of its file, '' if it has none."""


@dataclass(frozen=True, slots=True)
class JoinedTraining:
    """The training that let a runner in."""

    run: str
    """Its name."""
    other_source: bool
    """Whether its agent's file is another one than the runner's."""


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How a training ended, for those who joined it."""

    status: str
    """'finished', 'stopped' or 'failed'; 'unknown': the hub has no such training, or the runner did not join it."""
    error: str = ""
    """What it failed with."""
