"""The filter: which rollouts are shown, and in which order, as the parameters of an address say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.rollout_table import RolloutColumns
from lightning_dashboard.run_reader import STORE, RunReader
from lightning_hub.storage.reading import StoreReader

SORTS = ("started", "step", "reward", "seconds", "status", "task", "attempt")


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rollouts that a filter lets through."""

    columns: RolloutColumns
    places: NDArray[np.int64]
    """Their places in the columns, in the order that was asked for."""
    scores: NDArray[np.float64]
    """Of all rollouts: what the chosen role earned."""
    role: str


def select(run: RunReader, query: ViewQuery) -> Selection:
    """The rollouts that the query lets through. BadQuery for what cannot be used.

    Parameters: id (its beginning), mode ('train', 'evaluate', 'observe'), step, from, to (steps), evaluation, task,
    group, status, role, low and high (reward), text, attempts ('all': also those that were repeated), runner, sort,
    down.
    """
    columns = run.rollouts()
    role = query.text("role")
    scores = columns.scores(role)
    mask = _matches(columns, query) & _in_range(scores, query)
    if role:
        mask &= np.isfinite(scores) | (columns.statuses != "ok")
    if query.text("attempts") != "all":
        mask &= run.keep("last attempts", columns.version, columns.last_attempts)
    if text := query.text("text"):
        mask &= run.keep(("text", text), columns.version, lambda: _find_text(run, columns, text))
    return Selection(columns, _in_order(columns, np.flatnonzero(mask), scores, query), scores, role)


def _matches(columns: RolloutColumns, query: ViewQuery) -> NDArray[np.bool_]:
    mask = np.ones(len(columns), np.bool_)
    exact = {
        "mode": columns.modes,
        "evaluation": columns.evaluations,
        "status": columns.statuses,
        "group": columns.groups,
        "runner": columns.runners,
    }
    for name, column in exact.items():
        if wanted := query.texts(name):
            mask &= np.logical_or.reduce([column == value for value in wanted])
    if query.text("step"):
        mask &= columns.steps == query.integer("step")
    if query.text("from"):
        mask &= columns.steps >= query.integer("from")
    if query.text("to"):
        mask &= (columns.steps <= query.integer("to")) & (columns.steps >= 0)
    if start := query.text("id"):
        mask &= np.fromiter((each.startswith(start) for each in columns.ids), np.bool_, len(columns))
    if query.text("task"):
        mask &= columns.tasks == query.integer("task", low=-(2**63), high=2**63 - 1)
    return mask


def _in_range(scores: NDArray[np.float64], query: ViewQuery) -> NDArray[np.bool_]:
    low, high = query.number("low"), query.number("high")
    mask = np.ones(len(scores), np.bool_)
    if low is not None:
        mask &= scores >= low  # False where there is no reward
    if high is not None:
        mask &= scores <= high
    return mask


def _find_text(run: RunReader, columns: RolloutColumns, text: str) -> NDArray[np.bool_]:
    found = np.zeros(len(columns), np.bool_)
    with StoreReader(run.folder / STORE) as reader:
        places = [columns.places[key] for key in reader.find_text(text) if key in columns.places]
    found[places] = True
    return found


def _in_order(
    columns: RolloutColumns, places: NDArray[np.int64], scores: NDArray[np.float64], query: ViewQuery
) -> NDArray[np.int64]:
    """By one column, what has no value there last; the newest first among equals."""
    sort = query.choice("sort", SORTS)
    down = query.text("down", "1" if sort == "started" else "0") == "1"
    started = np.nan_to_num(columns.started[places])
    values = {
        "started": lambda: started,
        "step": lambda: columns.steps[places].astype(np.float64),
        "reward": lambda: scores[places],
        "seconds": lambda: (columns.ended - columns.started)[places],
        "status": lambda: np.unique(columns.statuses[places].astype(str), return_inverse=True)[1].astype(np.float64),
        "task": lambda: columns.tasks[places].astype(np.float64),
        "attempt": lambda: columns.attempts[places].astype(np.float64),
    }[sort]()
    return places[np.lexsort((-started, -values if down else values))]
