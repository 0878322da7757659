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
from typing import Any, Protocol, TextIO

from lightning_sdk.commands.report import Report

_log = logging.getLogger(__name__)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Progress:
    """Shows events; each is a dict with a 'type', and those of unknown type are left out.

    status {text}; notice {text}; started {step, steps, model}; step {step, steps, metrics};
    evaluation {name, mean, low, high, n, seeds}; warning {text}; finished {report, curve}, where report is the content
    of report.json.

    Never raises: where the output went away, or an event cannot be shown, training goes on unseen.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False, plain: bool | None = None) -> None:
        """Write to `stream`, by default stderr. `quiet` shows warnings only; `plain` None picks by the terminal."""
        stream = stream or sys.stderr
        self._quiet = quiet
        self._lock = threading.Lock()
        self._broken = False
        bar = None if quiet or plain or not stream.isatty() else _bar(stream)
        self._display: _Display = bar or _Lines(stream)

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event. Any thread may call."""
        kind = event.get("type")
        if self._quiet and kind != "warning":
            return
        show = getattr(self._display, f"show_{kind}") if kind in _KINDS else None
        with self._lock:
            if show is not None and not self._broken:
                try:
                    show(event)
                except Exception:
                    # A closed pipe, a closed file, an event of another version's hub.
                    self._broken = True
                    _log.warning("progress is no longer shown", exc_info=True)

    def close(self) -> None:
        """Leave the terminal as it was. Idempotent."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._display.close()


_KINDS = frozenset({"status", "notice", "started", "step", "evaluation", "warning", "finished"})


class _Display(Protocol):
    def show_status(self, event: Mapping[str, Any]) -> None: ...
    def show_notice(self, event: Mapping[str, Any]) -> None: ...
    def show_started(self, event: Mapping[str, Any]) -> None: ...
    def show_step(self, event: Mapping[str, Any]) -> None: ...
    def show_evaluation(self, event: Mapping[str, Any]) -> None: ...
    def show_warning(self, event: Mapping[str, Any]) -> None: ...
    def show_finished(self, event: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class _Lines:
    """One line of text for each event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clock = _Clock()
        self._run = ""

    def show_status(self, event: Mapping[str, Any]) -> None:
        self._print(_text(event))

    def show_notice(self, event: Mapping[str, Any]) -> None:
        self._print(_text(event))

    def show_started(self, event: Mapping[str, Any]) -> None:
        self._clock.start()
        self._run = str(event.get("run") or "")
        self._print(_starting(event))

    def show_step(self, event: Mapping[str, Any]) -> None:
        step, steps = int(event["step"]), int(event["steps"])
        left = self._clock.seconds_left(step, steps)
        number = f"{step:>{len(str(steps))}}/{steps}"
        self._print(f"step {number}  {_numbers(event.get('metrics', {}))}  {_duration(left)} left")

    def show_evaluation(self, event: Mapping[str, Any]) -> None:
        self._print(_evaluation_line(event))

    def show_warning(self, event: Mapping[str, Any]) -> None:
        self._print(f"warning: {_text(event)}")

    def show_finished(self, event: Mapping[str, Any]) -> None:
        report = event.get("report", {})
        if event.get("curve"):
            self._print("\n" + _COLOURS.sub("", str(event["curve"])) + "\n")
        for name, score in _scores(report):
            self._print(f"{name:<8}{_bounds(score)}")
        if report.get("change"):
            self._print(f"{'change':<8}{_bounds(report['change'], '+')}, by task")
        for line in _details(report):
            self._print(line)
        self._print(_ending(report))
        for each in report.get("findings") or ():
            self._print(_describe_finding(each))
        if self._run:
            self._print(_place(self._run, report))

    def close(self) -> None:
        self._stream.flush()

    def _print(self, text: str) -> None:
        # An ASCII terminal gets question marks instead of an error.
        encoding = self._stream.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)


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

        self._table, self._text, self._escape = Table, Text, escape
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

    def show_status(self, event: Mapping[str, Any]) -> None:
        self._live.update(self._task, description=self._escape(_text(event)), numbers="", refresh=True)

    def show_notice(self, event: Mapping[str, Any]) -> None:
        self._console.print(self._escape(_text(event)), soft_wrap=True)  # a command is copied from it

    def show_started(self, event: Mapping[str, Any]) -> None:
        self._clock.start()
        self._run = str(event.get("run") or "")
        self._console.print(self._escape(_starting(event)))
        steps = int(event["steps"])
        self._live.update(self._task, description="training" if steps else "scoring", total=steps or None)

    def show_step(self, event: Mapping[str, Any]) -> None:
        step, steps = int(event["step"]), int(event["steps"])
        left = self._clock.seconds_left(step, steps)
        numbers = f"{step}/{steps}  {_numbers(event.get('metrics', {}))}  [cyan]{_duration(left)} left[/cyan]"
        self._live.update(
            self._task, description="training", completed=step, total=steps, numbers=numbers, refresh=True
        )

    def show_evaluation(self, event: Mapping[str, Any]) -> None:
        self._console.print(self._escape(_evaluation_line(event)))

    def show_warning(self, event: Mapping[str, Any]) -> None:
        self._console.print(f"[yellow]warning:[/yellow] {self._escape(str(event['text']))}")

    def show_finished(self, event: Mapping[str, Any]) -> None:
        self.close()
        report = event.get("report", {})
        if event.get("curve"):
            self._console.print(self._text.from_ansi(str(event["curve"])), no_wrap=True, crop=True)
        scores = _scores(report)
        if scores:
            table = self._table("held-out tasks", "score", "95% interval", "tasks")
            for name, score in scores:
                table.add_row(name, *_cells(score))
            if report.get("change"):
                table.add_row("after minus before", *_cells(report["change"], "+"))
            self._console.print(table)
        for line in _details(report):
            self._console.print(self._text(line), soft_wrap=True)
        colour = {"better": "bold green", "worse": "bold red"}.get(str(report.get("verdict")), "bold")
        self._console.print(f"[{colour}]{self._escape(_ending(report))}[/{colour}]")
        for each in report.get("findings") or ():
            shade = "red" if each["severity"] == "fatal" else "yellow"
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


def _text(event: Mapping[str, Any]) -> str:
    return str(event.get("text") or "")


def _starting(event: Mapping[str, Any]) -> str:
    model, done = event.get("model") or "the model", event.get("step") or 0
    if not event["steps"]:
        return f"scoring {model}"
    return f"training {model} for {event['steps']} steps" + (f", going on after step {done}" if done else "")


def _numbers(metrics: Mapping[str, Any]) -> str:
    """Reward, loss and speed, in a fixed width each."""
    return (
        f"reward {_number(metrics.get('reward_mean'), '.3f'):>6}"
        f"  loss {_number(metrics.get('loss'), '+.4f'):>8}"
        f"  {_number(metrics.get('tokens_per_second'), ',.0f'):>6} tok/s"
    )


def _number(value: Any, shape: str) -> str:
    return "-" if value is None or value != value else format(value, shape)  # noqa: PLR0124 - NaN


def _evaluation_line(event: Mapping[str, Any]) -> str:
    return f"held-out score {event['name']}: {_bounds(event)}"


def _bounds(score: Mapping[str, Any], sign: str = "") -> str:
    known = score.get("low") is not None
    interval = f"  95% interval [{score['low']:{sign}.3f}, {score['high']:{sign}.3f}]" if known else ""
    return f"{_number(score.get('mean'), f'{sign}.3f')}{interval}  n={_tasks(score)}"


def _cells(score: Mapping[str, Any], sign: str = "") -> tuple[str, str, str]:
    """Mean, interval and tasks in a table."""
    known = score.get("low") is not None
    interval = f"{score['low']:{sign}.3f} to {score['high']:{sign}.3f}" if known else "-"
    return _number(score.get("mean"), f"{sign}.3f"), interval, _tasks(score)


def _tasks(score: Mapping[str, Any]) -> str:
    """How many, and how often each was run if more than once."""
    seeds = score.get("seeds") or 1
    return f"{score.get('n', '-')}" + (f" x {seeds} seeds" if seeds > 1 else "")


def _scores(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    held_out: Mapping[str, Mapping[str, Any]] = report.get("held_out") or {}
    return [(name, held_out[name]) for name in ("before", "after", "evaluation") if name in held_out]


def _details(report: Mapping[str, Any]) -> list[str]:
    return Report(Path(), dict(report)).details()


def _place(run: str, report: Mapping[str, Any]) -> str:
    """Where everything is, from where the user stands."""
    folder = Path(run)
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"run     {shown}: report.md" + (", curve.png, checkpoints" if report.get("steps") else "")


def _ending(report: Mapping[str, Any]) -> str:
    """The last line: what came out."""
    if report.get("status") == "failed":
        return f"failed after {report.get('steps', 0)} steps: {report.get('error') or 'unknown error'}"
    spent = f"{report.get('steps', 0)} steps in {_duration(float(report.get('train_seconds') or 0))}"
    verdict = report.get("verdict") or "not measured"
    reason = f"; {report['verdict_reason']}" if report.get("verdict_reason") else ""
    return f"{verdict}: {spent}{reason}" if report.get("steps") else "done"


def _describe_finding(finding: Mapping[str, Any]) -> str:
    """A finding, as `check` has it."""
    said = [finding[part].rstrip() for part in ("what", "cause", "remedy") if finding.get(part)]
    return "\n  ".join("\n".join([f"{finding['severity']}: {said[0]}", *said[1:]]).splitlines())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
