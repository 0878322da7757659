"""A tracker: a tool that keeps experiments, and what it is told of one run.

A tracker is found by its name in the entry-point group `lightning_sdk.trackers`: a class that is called with what
stands behind the colon in `--log-to NAME:PROJECT`, '' without one. It is called before a run starts, and raises
SettingError if it could not log. Later it may raise anything: the user is warned, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lightning_sdk.results.sample import RolloutSample

GROUP = "lightning_sdk.trackers"
"""The entry points of trackers."""
PROJECT = "lightning-sdk"
"""The project, or the experiment, of runs for which none is named."""

Value = str | int | float | bool | None
"""A setting, or something that was decided where the settings left it open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run as a tracker is told of it, when its model is loaded."""

    name: str
    folder: Path
    step: int = 0
    """The last step that was done before; 0 for a new run."""
    config: Mapping[str, Value] = field(default_factory=dict)
    """Setting by its dotted name, 'facts.NAME' and 'versions.PACKAGE' -> value."""
    earlier: str = ""
    """The id that the tracker gave to this run when it was logged there before; '' for a new one."""


@dataclass(frozen=True, slots=True)
class TrackedPlace:
    """Where a tracker keeps a run."""

    id: str
    """By which the tracker finds the run when it goes on."""
    where: str
    """For people: an address, or what to type to look at it."""


class Tracker(Protocol):
    """One run in a tool that keeps experiments. Only one thread calls, `start` first and `finish` last."""

    def start(self, run: TrackedRun) -> TrackedPlace:
        """Begin the run there, or go on with it."""

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        """A step is done. `scalars`: as `step_scalars` names them."""

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        """The held-out tasks were scored after this step. `scalars`: as `held_out_scalars` names them; `samples`: a few
        of the rollouts."""

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        """The run is over: 'finished', 'stopped' or 'failed'. Returns once everything has been sent."""
