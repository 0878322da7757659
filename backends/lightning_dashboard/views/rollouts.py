"""The table of rollouts: a page of those that a filter lets through, and what there is to choose from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.rollout_filter import Selection, select
from lightning_dashboard.rollout_table import RolloutColumns
from lightning_dashboard.run_reader import STORE, RunReader
from lightning_dashboard.runs import Runs
from lightning_hub.storage.reading import StoreReader

MOST_ROWS = 500
_PREVIEW = 300


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """Rows `offset` to `offset + limit` of those that match, how many match, and the values to filter by."""
    run = runs.open(query.require("run"))
    selection = select(run, query)
    offset, limit = query.integer("offset"), query.integer("limit", 100, low=1, high=MOST_ROWS)
    columns = selection.columns
    return {
        "total": len(selection.places),
        "all": len(columns),
        "offset": offset,
        "rows": _rows(run, selection, selection.places[offset : offset + limit].tolist()),
        "summary": summary(selection.scores[selection.places]),
        "facets": run.keep("facets", columns.version, lambda: _facets(columns)),
    }


def _rows(run: RunReader, selection: Selection, places: list[int]) -> list[dict[str, Any]]:
    columns = selection.columns
    texts = read_texts(run, [columns.keys[place] for place in places])
    return [{**describe(columns, place, selection.scores), **texts.get(columns.keys[place], {})} for place in places]


def describe(columns: RolloutColumns, place: int, scores: Any) -> dict[str, Any]:
    """One rollout, without its texts."""
    started, ended = float(columns.started[place]), float(columns.ended[place])
    return {
        "id": columns.ids[place],
        "attempt": int(columns.attempts[place]),
        "mode": columns.modes[place],
        "step": int(columns.steps[place]) if columns.steps[place] >= 0 else None,
        "evaluation": columns.evaluations[place],
        "task_id": str(columns.tasks[place]),
        "group": columns.groups[place],
        "status": columns.statuses[place],
        "reward": float(scores[place]) if math.isfinite(scores[place]) else None,
        "started": started if math.isfinite(started) else None,
        "seconds": ended - started if math.isfinite(ended - started) else None,
        "runner": columns.runners[place],
    }


def read_texts(run: RunReader, keys: list[bytes]) -> Mapping[bytes, dict[str, str]]:
    """Key -> what the task asks, the answer and the error, each cut."""
    if not keys:
        return {}
    with StoreReader(run.folder / STORE) as reader:
        return {
            key: {"task": preview(task), "answer": output[:_PREVIEW], "error": error[:_PREVIEW]}
            for key, (task, output, error) in reader.texts(keys).items()
        }


def preview(task: str) -> str:
    """The first text of a task, which is most often its question; all of it if it has none."""
    try:
        values = json.loads(task)
    except ValueError:
        return task[:_PREVIEW]
    texts = [each for each in values.values() if isinstance(each, str)] if isinstance(values, dict) else []
    return (texts[0] if texts else task)[:_PREVIEW]


def summary(scores: Any) -> dict[str, Any]:
    """Mean, spread and extremes of rewards, without those that have none."""
    known = scores[np.isfinite(scores)]
    if not len(known):
        return {"n": 0, "mean": None, "std": None, "low": None, "high": None}
    return {
        "n": len(known),
        "mean": float(known.mean()),
        "std": float(known.std()),
        "low": float(known.min()),
        "high": float(known.max()),
    }


def _facets(columns: RolloutColumns) -> dict[str, Any]:
    """Values to filter by, and how many rollouts have each."""
    known = columns.steps[columns.steps >= 0]
    return {
        "modes": _count(columns.modes),
        "statuses": _count(columns.statuses),
        "evaluations": _count(columns.evaluations[columns.evaluations != ""]),
        "roles": columns.rewarded_roles,
        "first_step": int(known.min()) if len(known) else None,
        "last_step": int(known.max()) if len(known) else None,
    }


def _count(column: Any) -> dict[str, int]:
    names, counts = np.unique(column.astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))
