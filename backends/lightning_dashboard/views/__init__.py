"""Views: what each part of the page shows of a run, as plain data. A view is one module with a function `view`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.runs import Runs

#: Names in addresses. They are imported when first asked for: until somebody looks, a dashboard costs nothing.
VIEWS = (
    "runs",
    "pulse",
    "run",
    "series",
    "rollouts",
    "groups",
    "rollout",
    "call",
    "tokens",
    "prompts",
    "compare",
    "system",
)


def answer(name: str, runs: Runs, query: ViewQuery) -> Any:
    """What the view of this name shows. LookupError if there is no such view."""
    if name not in VIEWS:
        raise LookupError(f"there is no view {name!r}")
    view: Callable[[Runs, ViewQuery], Any] = import_module(f"lightning_dashboard.views.{name}").view
    return view(runs, query)
