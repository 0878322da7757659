"""The pulse: a text that changes whenever a run's folder has something new, so that a page need not ask for all."""

from __future__ import annotations

from typing import Any

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.runs import Runs


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """Of the runs that are named, or of all."""
    found = [runs.open(name) for name in query.texts("run") or runs.folders()]
    return {"version": " ".join(run.version() for run in found), "running": any(run.is_running() for run in found)}
