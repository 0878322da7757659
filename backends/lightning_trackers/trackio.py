"""Trackio: a run of a project, on this machine, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says.

The project is the one that `--log-to trackio:PROJECT` names, else 'lightning-sdk'.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from trackio import Markdown, Table, init

from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.results.scalars import format_summary
from lightning_sdk.tracking.tracker import PROJECT, TrackedPlace, TrackedRun


class TrackioTracker:
    """Logs to a run that other threads, and so the agent's own code, do not have as their current one."""

    def __init__(self, project: str) -> None:
        self._project = project or PROJECT
        self._step = 0

    def start(self, run: TrackedRun) -> TrackedPlace:
        with _quiet_stdout():
            self._run = init(
                project=self._project,
                name=run.earlier or run.name,
                config=dict(run.config),
                resume="allow" if run.earlier else "never",
                embed=False,
            )
        return TrackedPlace(self._run.name, f"trackio show --project {shlex.quote(self._project)}")

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        self._step = step
        self._run.log(dict(scalars), step=step)

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        self.log_step(step, scalars)
        if samples:
            self._run.log({"held_out/samples": Table(data=[asdict(each) for each in samples])}, step=step)

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self._run.log({"summary": Markdown(format_summary(summary))}, step=self._step)
        with _quiet_stdout():
            self._run.finish()


def _quiet_stdout() -> contextlib.AbstractContextManager[object]:
    """Trackio says on standard output what it does, where `--json` promises a report and nothing else."""
    return contextlib.redirect_stdout(sys.stderr)
