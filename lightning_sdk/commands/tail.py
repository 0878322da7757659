"""`lightning-sdk tail`: follow a run that another process trains, until it ends."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk.commands import report
from lightning_sdk.commands.options import add_backend_python, add_runs, natural_number
from lightning_sdk.commands.progress import describe_evaluation, describe_metrics
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.commands.samples import choose_samples, describe_sample, find_filters
from lightning_sdk.commands.show_run import STATUS_COLOURS
from lightning_sdk.errors import SettingError
from lightning_sdk.hub.events import EvaluationEvent, StepEvent, WarningEvent, to_message
from lightning_sdk.results.run_files import read_report
from lightning_sdk.results.score import HeldOutScore
from lightning_sdk.system.folders import find_run_folder
from lightning_sdk.terminal.labelled import label_lines
from lightning_sdk.terminal.numbers import format_seconds
from lightning_sdk.terminal.printing import print_lines, print_text
from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.visible_text import make_line

_POLL_SECONDS = 0.5
_METRICS = ("reward_mean", "loss", "tokens_per_second", "seconds", "selection_best", "candidates", "rollouts_spent")


class FollowedSample(NamedTuple):
    """A rollout of what was told last."""

    rollout: Mapping[str, Any]
    """As the view `rollout` answers."""


class FollowedEnd(NamedTuple):
    """The run is over."""

    status: str


_Dated = StepEvent | EvaluationEvent | WarningEvent
Followed = _Dated | FollowedSample | FollowedEnd


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    text = "name or folder of the run; default: the newest of --runs, one under way before others"
    add("run_name", nargs="?", metavar="RUN", help=text)
    show = "samples of rollouts after each step and each evaluation, good and bad ones (default: %(default)s)"
    add("--show", type=natural_number, default=0, metavar="N", help=show)
    last = "how many of the steps that are over to begin with (default: %(default)s)"
    add("--last", type=natural_number, default=10, metavar="N", help=last)
    add_runs(parser)
    add_backend_python(parser, "hub")
    add("--json", action="store_true", help="print each event as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Print what happens until the run ends; 1 if it failed or was killed."""
    folder = find_run_folder(options.run_name, options.runs) if options.run_name else _find_newest(options)
    screen, status = Screen.of(sys.stdout), ""
    with RunViews([folder], options.backend_python) as views:
        for each in follow(views, views.names[0], options.last, options.show):
            print_lines([json.dumps(_to_message(each))] if options.json else _describe(each, screen))
            status = each.status if isinstance(each, FollowedEnd) else status
    if not options.json and read_report(folder) is not None:
        print_text(report.read(folder))
    return 0 if status in {"finished", "stopped"} else 1


def _find_newest(options: argparse.Namespace) -> Path:
    folder = Path(options.runs).expanduser().absolute()
    with RunViews([folder], options.backend_python) as views:
        found = views.ask("runs")["runs"]
    if not found:
        raise SettingError(f"there are no runs in {folder}; name another folder of runs with --runs FOLDER")
    under_way = [each for each in found if each["status"] == "running"]
    return folder / str((under_way or found)[0]["name"])


def follow(views: RunViews, run: str, last: int, show: int) -> Iterator[Followed]:
    """What happens, and its end; first what has happened, of the steps the `last` ones.

    `show`: samples of each step and each evaluation; of what has happened already, only of the last step.
    """
    seen, version = _Seen(), ""
    while True:
        pulse = views.ask("pulse", run)  # asked first: what is written from now on is read in the next round
        if pulse["version"] != version:
            events, is_first = seen.read_news(views, run, last if not version else None), not version
            version = pulse["version"]
            newest = max((each.step for each in events if isinstance(each, StepEvent)), default=0)
            for event in events:
                yield event
                if not is_first or (isinstance(event, StepEvent) and event.step == newest):
                    yield from map(FollowedSample, choose_samples(views, run, show, find_filters(event)))
        if not pulse["running"]:
            yield FollowedEnd(views.ask("run", run)["status"])
            return
        time.sleep(_POLL_SECONDS)


class _Seen:
    """What was told of a run already."""

    def __init__(self) -> None:
        self._step = 0
        self._evaluations: set[tuple[int, str]] = set()
        self._findings: set[str] = set()

    def read_news(self, views: RunViews, run: str, last: int | None) -> Sequence[_Dated]:
        """What is new, in the order in which it happened."""
        found, metrics = views.ask("run", run), views.ask("series", run, name=_METRICS)
        dated: list[tuple[int, int, _Dated]] = [
            *self._new_steps(found, metrics, last),
            *self._new_evaluations(found),
            *self._new_findings(found),
        ]
        return [event for _, _, event in sorted(dated, key=lambda each: each[:2])]

    def _new_steps(
        self, found: Mapping[str, Any], metrics: Mapping[str, Any], last: int | None
    ) -> Iterator[tuple[int, int, StepEvent]]:
        steps: list[int] = metrics["steps"]
        self._step = min(self._step, max(steps, default=0))  # a run that goes on may begin before the end of its steps
        new = [at for at, step in enumerate(steps) if step > self._step]
        for at in new if last is None else new[len(new) - min(last, len(new)) :]:
            values = {name: each[at] for name, each in metrics["series"].items() if each[at] is not None}
            planned = int(found["settings"].get("steps") or 0)
            yield steps[at], 0, StepEvent(steps[at], planned, values)
        self._step = max(steps, default=0)

    def _new_evaluations(self, found: Mapping[str, Any]) -> Iterator[tuple[int, int, EvaluationEvent]]:
        for each in found["evaluations"]:
            if (key := (each["step"], each["name"])) not in self._evaluations:
                self._evaluations.add(key)
                yield each["step"], 1, EvaluationEvent(each["name"], HeldOutScore.from_dict(each))

    def _new_findings(self, found: Mapping[str, Any]) -> Iterator[tuple[int, int, WarningEvent]]:
        """At the step after which each was found; it says since when."""
        for each in found["findings"]:
            if each["kind"] not in self._findings:
                self._findings.add(each["kind"])
                yield self._step, 2, WarningEvent(f"since step {each['step']}: {each['what']}")


def _to_message(event: Followed) -> dict[str, Any]:
    match event:
        case FollowedSample(rollout):
            return {"type": "sample", **rollout}
        case FollowedEnd(status):
            return {"type": "end", "status": status}
        case _:
            return to_message(event)


def _describe(event: Followed, screen: Screen) -> list[str]:
    match event:
        case StepEvent():
            left = event.metrics.get("seconds", 0.0) * (event.steps - event.step)
            number = f"{event.step:>{len(str(event.steps))}}/{event.steps}"
            return [f"step {number}  {describe_metrics(event.metrics)}  {format_seconds(left)} left"]
        case EvaluationEvent():
            return [screen.paint(make_line(describe_evaluation(event)), "bold")]
        case WarningEvent(text):
            return label_lines("warning", text, screen, "yellow")
        case FollowedSample(rollout):
            return describe_sample(rollout, screen)
        case FollowedEnd(status):
            return [screen.paint(status, STATUS_COLOURS.get(status, ""))]
