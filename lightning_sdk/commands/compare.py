"""`lightning-sdk compare`: runs over each other, what was set differently, and whether one is better."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sdk.commands.options import add_backend_python, add_runs
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.commands.show_run import STATUS_COLOURS, curve_line
from lightning_sdk.errors import SettingError
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.labelled import label_lines
from lightning_sdk.terminal.numbers import format_interval, format_number
from lightning_sdk.terminal.printing import print_lines
from lightning_sdk.terminal.screen import ROLE_COLOURS, Screen
from lightning_sdk.terminal.small_curve import find_limits
from lightning_sdk.terminal.table import draw_table
from lightning_sdk.terminal.visible_text import make_line
from lightning_sdk.terminal.width import cut


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    text = "names or folders of runs; the first one is what the others are compared with"
    add("run_names", nargs="+", metavar="RUN", help=text)
    add("--metric", default="reward_mean", metavar="NAME", help="what the curves show (default: %(default)s)")
    add_runs(parser)
    add_backend_python(parser, "hub")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    """Print how they compare."""
    folders = list(dict.fromkeys(find_run_folder(each, options.runs) for each in options.run_names))
    if len(folders) < 2:
        raise SettingError("compare: name at least two different runs; `lightning-sdk runs` lists them")
    with RunViews(folders, options.backend_python) as views:
        found = views.ask("compare", views.names, metric=options.metric)
    print_lines([json.dumps(found)] if options.json else describe_comparison(found, Screen.of(sys.stdout)))


def describe_comparison(found: Mapping[str, Any], screen: Screen) -> list[str]:
    """Lines about what the view `compare` answers."""
    return [*_scores(found["runs"], screen), "", *_curves(found, screen), "", *_settings(found, screen)]


def _scores(runs: Sequence[Mapping[str, Any]], screen: Screen) -> Iterator[str]:
    """The last held-out score of each, and then what its difference from the first shows."""
    rows = [
        [
            make_line(run["name"]),
            run["status"],
            (run["held_out"] or {}).get("name", "-"),
            format_interval(run["held_out"]),
            str((run["held_out"] or {}).get("n", "-")),
        ]
        for run in runs
    ]
    yield from draw_table(("run", "status", "measured", "held-out score", "tasks"), rows, screen)
    yield ""
    for run in runs[1:]:
        difference = run["difference"]
        name, verdict = make_line(run["name"]), difference["verdict"]
        told = f"{verdict or difference['missing']}, {name} minus {runs[0]['name']}"
        if difference["mean"] is not None:
            tasks = f"over {difference['n']} tasks that both have"
            told = f"{format_interval(difference, '+')} {verdict or difference['missing']}: {name} minus "
            told += f"{runs[0]['name']}, {tasks}"
        yield from label_lines("change", told, screen, STATUS_COLOURS.get(verdict, ""))


def _curves(found: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    """One below the other, on one scale and in one width for each step."""
    metric = found["metric"]
    curves = {run["name"]: run["curve"]["series"][metric] for run in found["runs"]}
    if not any(value is not None for values in curves.values() for value in values):
        yield make_line(f"none of them has the metric {metric}")
        return
    limits, longest = find_limits(*curves.values()), max(map(len, curves.values()))
    yield screen.paint(make_line(metric), "bold") + f"  from {format_number(limits[0])} to {format_number(limits[1])}"
    for place, (name, values) in enumerate(curves.items()):
        known = [each for each in values if each is not None]
        told = f"{format_number(known[0])} to {format_number(known[-1])}" if known else "not measured"
        padded = [*values, *[None] * (longest - len(values))]
        colour = ROLE_COLOURS[place % len(ROLE_COLOURS)]
        yield curve_line(name, padded, f"{told} in {len(values)} steps", screen, limits=limits, colour=colour)


def _settings(found: Mapping[str, Any], screen: Screen) -> Iterator[str]:
    if not found["settings"]:
        yield "all settings are the same"
        return
    header = ("settings that differ", *(make_line(run["name"]) for run in found["runs"]))
    rows = [
        [make_line(each["name"]), *(cut(make_line(str(value)), 40) for value in each["values"])]
        for each in found["settings"]
    ]
    yield from draw_table(header, rows, screen)
