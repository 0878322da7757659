"""`lightning-sdk runs`: every run of a folder in one line each, as the dashboard's list has them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_sdk.commands.options import add_backend_python, add_runs
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.errors import SettingError
from lightning_sdk.terminal.numbers import format_interval, format_score, format_seconds
from lightning_sdk.terminal.printing import print_lines
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.small_curve import draw_curve
from lightning_sdk.terminal.table import draw_table
from lightning_sdk.terminal.visible_text import make_line
from lightning_sdk.terminal.width import cut

_CURVE_COLUMNS = 16
_NAME_COLUMNS = 40


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add_runs(parser)
    add_backend_python(parser, "hub")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Print the list."""
    found = read_runs(Path(options.runs).expanduser(), options.backend_python)
    if options.json:
        print(json.dumps(found))
    else:
        print_lines(describe_runs(found, Screen.of(sys.stdout)) or [f"no runs in {options.runs}"])


def read_runs(folder: Path, python: str | None = None) -> list[dict[str, Any]]:
    """The runs of a folder, newest first; SettingError if it is not a folder."""
    if folder.is_file():
        raise SettingError(f"{folder} is a file, not a folder of runs; name one with --runs FOLDER")
    with RunViews([folder], python) as views:
        runs: list[dict[str, Any]] = views.ask("runs")["runs"]
        return runs


def describe_runs(runs: Sequence[Mapping[str, Any]], screen: Screen) -> list[str]:
    """Lines about what the view `runs` answers; none without runs."""
    rows = [
        [
            cut(make_line(each["name"]), _NAME_COLUMNS),
            each["status"],
            f"{each['steps']} of {each['planned']}" if each["kind"] == "training" else "-",
            draw_curve(each["rewards"], screen, _CURVE_COLUMNS) or "-",
            format_score((each["before"] or {}).get("mean")),
            format_score((each["after"] or {}).get("mean")),
            format_interval(each["change"], "+"),
            format_seconds(each["train_seconds"]),
            make_line(f"{each['model'] or '-'}  {each['verdict']}"),
        ]
        for each in runs
    ]
    head = ("name", "status", "steps", "reward", "before", "after", "change", "trained for", "model and verdict")
    return draw_table(head, rows, screen, numbers="llrlrrrr") if rows else []
