"""What a notebook shows: the figure of a run, and a training's progress as one output that changes."""

from __future__ import annotations

import importlib
import io
import math
import sys
import time
from collections import deque
from html import escape
from pathlib import Path
from typing import Any

from lightning_sdk.commands.figure import FigurePoint, RunFigure
from lightning_sdk.commands.run_views import RunViews
from lightning_sdk.errors import LightningError
from lightning_sdk.hub.events import EvaluationEvent, StartedEvent, StepEvent
from lightning_sdk.results.run_files import STEPS, read_config, read_lines, read_report
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.terminal.visible_text import make_visible

#: Output is written again at most so often, for a page keeps all that was sent to it.
_REDRAW_SECONDS = 0.5
_MOST_LINES = 14
_TEXT_STYLE = "white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px;line-height:1.4;background:none;color:inherit"


def find_display() -> Any:
    """IPython's module for output, if this process is a notebook's; else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return importlib.import_module("IPython.display") if getattr(shell, "kernel", None) is not None else None


def to_html(figure: RunFigure | None, text: str) -> str:
    """A figure and text below it, which are safe whatever an agent wrote."""
    drawn = figure.draw() if figure is not None else ""
    return f'<div>{drawn}<pre style="{_TEXT_STYLE}">{escape(make_visible(text))}</pre></div>'


def read_figure(folder: Path) -> RunFigure | None:
    """The figure of a run: with intervals, as the dashboard has them, where the hub's environment is known; None where
    there is nothing to draw."""
    config = read_config(folder)
    try:
        with RunViews([folder], (config and config.origin.backend_python) or None) as views:
            return RunFigure.of_view(views.ask("run", views.names[0], whole=1))
    except LightningError:
        return _read_kept_figure(folder)


def _read_kept_figure(folder: Path) -> RunFigure | None:
    try:
        steps = read_lines(folder / STEPS).whole
    except ValueError:
        return None
    points = [FigurePoint(each["step"], each["reward_mean"]) for each in steps if each.get("reward_mean") is not None]
    report = read_report(folder)
    held_out = [] if report is None else _held_out_points(report)
    return RunFigure({"reward": points}, held_out, title=folder.name)


def _held_out_points(report: RunReport) -> list[FigurePoint]:
    found = ((each.step, each.score) for each in report.held_out.values())
    return [FigurePoint(step, score.mean, score.low, score.high) for step, score in found if score.mean is not None]


class LiveFigure(io.StringIO):
    """One output of a cell that changes: the figure of a training so far, and the last lines written to it."""

    def __init__(self, display: Any) -> None:
        """`display`: IPython's module for output."""
        super().__init__()
        self._html = display.HTML
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._points: list[FigurePoint] = []
        self._scores: list[FigurePoint] = []
        self._steps, self._run, self._unfinished = 0, "", ""
        self._handle = display.display(self._html(to_html(None, "starting")), display_id=True)
        self._drawn, self._may_wait = time.monotonic(), False

    def begin(self, event: StartedEvent) -> None:
        """The axis has room for all steps of the run that has started."""
        self._steps, self._run = event.steps, Path(event.run).name

    def add_step(self, event: StepEvent) -> None:
        """Steps may be many: one that follows within half a second is shown together with what comes next."""
        self._may_wait = time.monotonic() - self._drawn < _REDRAW_SECONDS
        reward = event.metrics.get("reward_mean", math.nan)
        if math.isfinite(reward):
            self._points.append(FigurePoint(event.step, reward))

    def add_score(self, event: EvaluationEvent) -> None:
        score = event.score.score
        if score.mean is not None:
            self._scores.append(FigurePoint(event.score.step, score.mean, score.low, score.high))

    def begin_report(self) -> None:
        """What is written from now on takes the place of the lines so far, and is shown whole."""
        self._lines = deque()

    def write(self, text: str) -> int:
        """Whole lines are shown; what follows the last one waits for its end."""
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        self._lines += lines
        return len(text)

    def flush(self) -> None:
        """Show what is new, unless it is a step that may wait."""
        if not self._may_wait:
            self.draw()
        self._may_wait = False

    def draw(self) -> None:
        """Show what is new."""
        self._drawn = time.monotonic()
        figure = RunFigure({"reward": self._points}, self._scores, self._steps, self._run)
        self._handle.update(self._html(to_html(figure, "\n".join(self._lines))))
