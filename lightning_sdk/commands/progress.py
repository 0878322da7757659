"""The progress of a training run, shown in the user's own process from events of the hub.

With `rich` installed and a terminal to write to: a bar, then the curve and a table. Otherwise one line for each event,
which also reads well in a log file.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TextIO

from lightning_sdk.commands.notebook import LiveFigure, find_display
from lightning_sdk.commands.report import detail_lines, next_commands
from lightning_sdk.failures.finding import Finding
from lightning_sdk.hub.events import (
    CheckedEvent,
    EvaluationEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    NoticeEvent,
    PaceEvent,
    StartedEvent,
    StatusEvent,
    StepEvent,
    WarningEvent,
)
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.score import HeldOutScore, Interval
from lightning_sdk.terminal.printing import print_text
from lightning_sdk.terminal.visible_text import make_visible

_log = logging.getLogger(__name__)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Progress:
    """Shows events. What a check found, and what a run failed with, is shown by who asked for it.

    Never raises: where the output went away, or an event cannot be shown, training goes on unseen.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, plain: bool | None = None) -> None:
        """Write to `stream`, by default stderr. `quiet` shows warnings only; `plain` None picks by the terminal."""
        notebook = find_display() if stream is None and not quiet and not plain else None
        stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()
        self._broken = False
        bar = None if quiet or plain or notebook or not stream.isatty() else _bar(stream)
        self._display: _Display = bar or (_InNotebook(LiveFigure(notebook)) if notebook else _Lines(stream))

    def show(self, event: Event) -> None:
        """Show one event. Any thread may call."""
        if self._quiet and not isinstance(event, WarningEvent):
            return
        with self._lock:
            if not self._broken:
                try:
                    _show(self._display, event)
                except Exception:
                    # A closed pipe, a closed file, a report of another version's hub.
                    self._broken = True
                    _log.warning("progress is no longer shown", exc_info=True)

    def close(self) -> None:
        """Leave the terminal as it was. Idempotent."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._display.close()


def _show(display: _Display, event: Event) -> None:
    match event:
        case StatusEvent(text):
            display.show_status(text)
        case NoticeEvent(text):
            display.show_notice(text)
        case PaceEvent(text=text, is_news=True):
            display.show_notice(text)
        case WarningEvent(text):
            display.show_warning(text)
        case StartedEvent():
            display.show_started(event)
        case StepEvent():
            display.show_step(event)
        case EvaluationEvent():
            display.show_evaluation(event)
        case FinishedEvent():
            display.show_finished(event.report, event.curve)
        case PaceEvent() | CheckedEvent() | FailedEvent():
            pass


class _Display(Protocol):
    def show_status(self, text: str) -> None: ...
    def show_notice(self, text: str) -> None: ...
    def show_warning(self, text: str) -> None: ...
    def show_started(self, event: StartedEvent) -> None: ...
    def show_step(self, event: StepEvent) -> None: ...
    def show_evaluation(self, event: EvaluationEvent) -> None: ...
    def show_finished(self, report: RunReport, curve: str) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """One line of text for each event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock = _Clock()
        self._run = ""

    def show_status(self, text: str) -> None:
        self._print(text)

    def show_notice(self, text: str) -> None:
        self._print(text)

    def show_started(self, event: StartedEvent) -> None:
        self._clock.start()
        self._run = event.run
        self._print(_starting(event))

    def show_step(self, event: StepEvent) -> None:
        step, steps = event.step, event.steps
        left = self._clock.seconds_left(step, steps)
        number = f"{step:>{len(str(steps))}}/{steps}"
        self._print(f"step {number}  {describe_metrics(event.metrics)}  {_duration(left)} left")

    def show_evaluation(self, event: EvaluationEvent) -> None:
        self._print(describe_evaluation(event))

    def show_warning(self, text: str) -> None:
        self._print(f"warning: {text}")

    def show_finished(self, report: RunReport, curve: str) -> None:
        if curve:
            self._print("\n" + _COLOURS.sub("", curve) + "\n")
        for name, measured in _scores(report):
            self._print(f"{name:<8}{_bounds(measured.score, measured.seeds)}")
        if report.change is not None:
            self._print(f"{'change':<8}{_bounds(report.change, sign='+')}, by task")
        for line in detail_lines(report):
            self._print(line)
        self._print(_ending(report))
        for each in report.findings:
            self._print(_describe_finding(each))
        if self._run:
            self._print(_place(self._run, report))

    def close(self) -> None:
        self._stream.flush()

    def _print(self, text: str) -> None:
        print_text(text, self._stream)


class _InNotebook(_Lines):
    """A figure that grows, and below it the last lines."""

    def __init__(self, figure: LiveFigure) -> None:
        super().__init__(figure)
        self._figure = figure

    def show_started(self, event: StartedEvent) -> None:
        self._figure.begin(event)
        super().show_started(event)

    def show_step(self, event: StepEvent) -> None:
        self._figure.add_step(event)
        super().show_step(event)

    def show_evaluation(self, event: EvaluationEvent) -> None:
        self._figure.add_score(event)
        super().show_evaluation(event)

    def show_finished(self, report: RunReport, curve: str) -> None:
        self._figure.begin_report()
        super().show_finished(report, "")  # the figure is its curve

    def close(self) -> None:
        self._figure.draw()


def _bar(stream: TextIO) -> _Display | None:
    """A bar, if rich is there: an agent's environment seldom has it."""
    try:
        return _Bar(stream)
    except ImportError:
        return None


class _Bar:
    """A live bar with reward, loss, tokens/s and time left; all else is printed above it."""

    def __init__(self, stream: TextIO) -> None:
        # Deferred: rich is optional, and slow to import.
        from rich.console import Console  # noqa: PLC0415
        from rich.markup import escape  # noqa: PLC0415
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        def make_text(text: str, style: str = "") -> Text:
            return Text(make_visible(text), style)

        def make_markup(text: str) -> str:
            return escape(make_visible(text))

        self._table, self._curve = Table, Text.from_ansi
        self._text, self._escape = make_text, make_markup
        self._console = Console(file=stream, highlight=False)
        self._clock = _Clock()
        self._run = ""
        self._live = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
            # What the agent prints goes above the bar, unless its output goes elsewhere, such as into a file.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
            transient=True,
            expand=True,
        )
        self._task = self._live.add_task("starting", total=None, numbers="")
        self._live.start()

    def show_status(self, text: str) -> None:
        self._live.update(self._task, description=self._escape(text), numbers="", refresh=True)

    def show_notice(self, text: str) -> None:
        self._console.print(self._escape(text), soft_wrap=True)  # a command is copied from it

    def show_started(self, event: StartedEvent) -> None:
        self._clock.start()
        self._run = event.run
        self._console.print(self._escape(_starting(event)))
        doing = "training" if event.steps else "scoring"
        self._live.update(self._task, description=doing, total=event.steps or None)

    def show_step(self, event: StepEvent) -> None:
        step, steps = event.step, event.steps
        left = self._clock.seconds_left(step, steps)
        numbers = f"{step}/{steps}  {describe_metrics(event.metrics)}  [cyan]{_duration(left)} left[/cyan]"
        self._live.update(
            self._task, description="training", completed=step, total=steps, numbers=numbers, refresh=True
        )

    def show_evaluation(self, event: EvaluationEvent) -> None:
        self._console.print(self._escape(describe_evaluation(event)))

    def show_warning(self, text: str) -> None:
        self._console.print(f"[yellow]warning:[/yellow] {self._escape(text)}")

    def show_finished(self, report: RunReport, curve: str) -> None:
        self.close()
        if curve:
            self._console.print(self._curve(curve), no_wrap=True, crop=True)
        scores = _scores(report)
        if scores:
            table = self._table("held-out tasks", "score", "95% interval", "tasks")
            for name, measured in scores:
                table.add_row(name, *_cells(measured.score, measured.seeds))
            if report.change is not None:
                table.add_row("after minus before", *_cells(report.change, sign="+"))
            self._console.print(table)
        for line in detail_lines(report):
            self._console.print(self._text(line), soft_wrap=True)
        colour = {"better": "bold green", "worse": "bold red"}.get(report.verdict, "bold")
        self._console.print(f"[{colour}]{self._escape(_ending(report))}[/{colour}]")
        for each in report.findings:
            shade = "red" if each.is_fatal else "yellow"
            self._console.print(self._text(_describe_finding(each), shade), soft_wrap=True)
        if self._run:
            self._console.print(self._text(_place(self._run, report)), soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


class _Clock:
    """Time left, from the wall time of the last steps: early ones are slower, and a resumed run starts late."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._seen: list[tuple[float, int | None]] = [(time.monotonic(), None)]

    def seconds_left(self, step: int, steps: int) -> float:
        """Seconds that the remaining steps will take."""
        self._seen = [*self._seen[-10:], (time.monotonic(), step)]
        began, first = self._seen[0]
        done = max(1, step - (first if first is not None else (self._seen[1][1] or 1) - 1))
        return (time.monotonic() - began) / done * (steps - step)


def _starting(event: StartedEvent) -> str:
    model = event.model or "the model"
    if not event.steps:
        return f"scoring {model}"
    if event.search:
        return f"tuning prompts in at most {quantity(event.steps, 'round')}"
    later = f", going on after step {event.step}" if event.step else ""
    return f"training {model} for {quantity(event.steps, 'step')}{later}"


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """Reward, loss and speed, in a fixed width each; of a search for texts, how far it has come."""
    if (best := metrics.get("selection_best")) is not None:
        return (
            f"reward {_number(metrics.get('reward_mean'), '.3f'):>6}  best so far {_number(best, '.3f'):>6}"
            f"  {metrics.get('candidates', 0):g} candidates, {metrics.get('rollouts_spent', 0):g} rollouts"
        )
    return (
        f"reward {_number(metrics.get('reward_mean'), '.3f'):>6}"
        f"  loss {_number(metrics.get('loss'), '+.4f'):>8}"
        f"  {_number(metrics.get('tokens_per_second'), ',.0f'):>6} tok/s"
    )


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None or value != value else format(value, shape)  # noqa: PLR0124 - NaN


def describe_evaluation(event: EvaluationEvent) -> str:
    return f"held-out score {event.name}: {_bounds(event.score.score, event.score.seeds)}"


def _bounds(score: Interval, seeds: int = 1, *, sign: str = "") -> str:
    interval = "" if score.low is None else f"  95% interval [{score.low:{sign}.3f}, {score.high:{sign}.3f}]"
    return f"{_number(score.mean, f'{sign}.3f')}{interval}  n={_tasks(score, seeds)}"


def _cells(score: Interval, seeds: int = 1, *, sign: str = "") -> tuple[str, str, str]:
    """Mean, interval and tasks in a table."""
    interval = "-" if score.low is None else f"{score.low:{sign}.3f} to {score.high:{sign}.3f}"
    return _number(score.mean, f"{sign}.3f"), interval, _tasks(score, seeds)


def _tasks(score: Interval, seeds: int) -> str:
    """How many, and how often each was run if more than once."""
    return str(score.n) + (f" x {seeds} seeds" if seeds > 1 else "")


def _scores(report: RunReport) -> list[tuple[str, HeldOutScore]]:
    names = ("before", "prompted", "after", "evaluation")
    return [(name, report.held_out[name]) for name in names if name in report.held_out]


def _place(run: str, report: RunReport) -> str:
    """Where everything is, from where the user stands, and what can be done with it."""
    folder = Path(run)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    kept = "candidates.jsonl" if report.is_search else "checkpoints"
    place = f"run     {shown}: report.md" + (f", curve.png, {kept}" if report.steps else "")
    return "\n".join([place, *(f"next    {each}" for each in next_commands(report, str(shown)))])


def _ending(report: RunReport) -> str:
    """The last line: what came out."""
    if report.status == "failed":
        return f"failed after {quantity(report.steps, 'step')}: {report.error or 'unknown error'}"
    if not report.steps:
        return "done"
    reason = f"; {report.verdict_reason}" if report.verdict_reason else ""
    done = quantity(report.steps, "round" if report.is_search else "step")
    return f"{report.verdict or 'not measured'}: {done} in {_duration(report.train_seconds)}{reason}"


def _describe_finding(finding: Finding) -> str:
    """A finding, as `check` has it."""
    said = [part.rstrip() for part in (finding.what, finding.cause, finding.remedy) if part]
    return "\n  ".join("\n".join([f"{finding.severity}: {said[0]}", *said[1:]]).splitlines())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
