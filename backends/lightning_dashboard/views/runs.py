"""The list of runs: what each is, how far it has come, and its score before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_sdk.results.score import Interval


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """Every run, the newest first."""
    return {
        "runs": [_describe(runs.open(name), folder) for name, folder in runs.folders().items()],
        "places": [str(place) for place in runs.places],
    }


def _describe(run: RunReader, folder: Path) -> dict[str, Any]:
    return run.keep("listed", run.version(), lambda: _read(run, folder))


def _read(run: RunReader, folder: Path) -> dict[str, Any]:
    config, report, steps = run.config, run.report, run.steps()
    scores = {each.name: each.score.as_dict() for each in run.evaluations()}
    settings = config.settings or {}
    return {
        "name": run.name,
        "kind": config.kind,
        "status": run.status(),
        "model": settings.get("model"),
        "backend": settings.get("backend"),
        "steps": len(steps),
        "planned": settings.get("steps"),
        "before": scores.get("before"),
        "after": scores.get("after") or scores.get("evaluation"),
        "change": _interval(report.change if report else None),
        "verdict": report.verdict if report else "",
        "train_seconds": report.train_seconds if report else None,
        "rewards": [step.get("reward_mean") for step in _thin(steps)],
        "changed": max((path.stat().st_mtime for path in folder.iterdir() if path.is_file()), default=0.0),
    }


def _interval(given: Interval | None) -> dict[str, Any] | None:
    return None if given is None else given.as_dict()


def _thin(steps: Any, most: int = 60) -> Any:
    """About `most` of them, for a small picture."""
    return steps[:: max(1, len(steps) // most)]
