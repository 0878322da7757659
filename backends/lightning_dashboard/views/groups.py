"""The groups of rollouts: what one task earned in each try, how far the tries lie apart, and whether that teaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.rollout_filter import Selection, select
from lightning_dashboard.runs import Runs
from lightning_dashboard.views.rollouts import MOST_ROWS, describe, read_texts

SORTS = ("step", "spread", "mean", "rollouts", "failed")


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """Groups `offset` to `offset + limit` of those that have rollouts that match, each with its rollouts."""
    run = runs.open(query.require("run"))
    selection = select(run, ViewQuery(_without_sort(query)))
    offset, limit = query.integer("offset"), query.integer("limit", 50, low=1, high=MOST_ROWS)
    groups = _group(selection)
    order = _order(groups, query.choice("sort", SORTS), query.text("down", "1") == "1")
    shown = order[offset : offset + limit].tolist()
    texts = read_texts(run, [selection.columns.keys[int(groups["first"][each])] for each in shown])
    return {
        "total": len(order),
        "offset": offset,
        "without_signal": int((groups["spread"] == 0).sum()),
        "rows": [_describe(selection, groups, each, texts) for each in shown],
    }


def _without_sort(query: ViewQuery) -> str:
    return query.encode(leave_out=frozenset({"sort", "down"}))


def _group(selection: Selection) -> dict[str, Any]:
    """Columns with one place for each group."""
    columns, places = selection.columns, selection.places
    _, first, codes = np.unique(columns.group_numbers[places], return_index=True, return_inverse=True)
    count = len(first)
    scores = selection.scores[places]
    known = np.isfinite(scores)
    n = np.bincount(codes[known], minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(codes[known], scores[known], minlength=count) / n
        square = np.bincount(codes[known], (scores[known] - mean[codes[known]]) ** 2, minlength=count) / n
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(count))
    return {
        "first": places[first],
        "members": np.split(places[order], starts[1:]) if count else [],
        "mean": mean,
        "spread": np.sqrt(square),
        "rollouts": np.bincount(codes, minlength=count),
        "failed": np.bincount(codes[columns.statuses[places] != "ok"], minlength=count),
        "step": columns.steps[places][first],
    }


def _order(groups: dict[str, Any], sort: str, down: bool) -> Any:
    values = groups[sort].astype(np.float64)
    return np.lexsort((groups["first"], -values if down else values))


def _describe(selection: Selection, groups: dict[str, Any], at: int, texts: Any) -> dict[str, Any]:
    columns, members = selection.columns, groups["members"][at].tolist()
    first = describe(columns, int(groups["first"][at]), selection.scores)
    return {
        **{name: first[name] for name in ("mode", "step", "evaluation", "task_id", "group")},
        "task": texts.get(columns.keys[int(groups["first"][at])], {}).get("task", ""),
        "mean": float(groups["mean"][at]),
        "spread": float(groups["spread"][at]),
        "failed": int(groups["failed"][at]),
        "rollouts": [
            {"id": each["id"], "attempt": each["attempt"], "status": each["status"], "reward": each["reward"]}
            for each in (describe(columns, place, selection.scores) for place in members)
        ],
    }
