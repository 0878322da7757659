"""The commands that show runs, each with its help, as the command line registers them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from lightning_sdk.commands import compare, dashboard, export, history, show, tail


class Viewer(NamedTuple):
    """A command that only reads runs."""

    name: str
    run: Callable[[argparse.Namespace], int | None]
    add_options: Callable[[argparse.ArgumentParser], None]
    text: str
    """What it does, in its help."""
    examples: tuple[str, ...]
    """Command lines that a reader can copy."""


VIEWERS = (
    Viewer("runs", history.run, history.add_options, "list runs", ("runs", "runs --runs elsewhere --json")),
    Viewer(
        "show",
        show.run,
        show.add_options,
        "show a run, its rollouts, or one of them: what the dashboard shows, as text",
        (
            "show solve",
            "show solve --status timeout",
            "show solve worst --step 10",
            "show solve 3f2a91c0 --call 2 --tokens",
        ),
    ),
    Viewer(
        "tail",
        tail.run,
        tail.add_options,
        "follow a run under way until it ends; Ctrl-C leaves the run alone",
        ("tail", "tail solve --show 2"),
    ),
    Viewer(
        "compare",
        compare.run,
        compare.add_options,
        "show runs beside each other: held-out scores, curves, settings that differ",
        ("compare solve solve-larger-groups",),
    ),
    Viewer(
        "dashboard",
        dashboard.run,
        dashboard.add_options,
        "show runs in a browser, also while they train",
        ("dashboard", "dashboard solve"),
    ),
    Viewer(
        "export",
        export.run,
        export.add_options,
        "write runs into files",
        ("export solve --html solve.html", "export solve --parquet tables --mode train --status ok"),
    ),
)
