"""The figure of a run as inline SVG: its reward with the interval of each step, and its held-out scores.

It has no script and loads nothing, takes its ink from the text around it, and so fits light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lightning_sdk.terminal.numbers import format_number
from lightning_sdk.terminal.visible_text import make_line

_WIDTH, _HEIGHT = 640, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 34
#: Legible on white and on black.
_CURVE_COLOURS = ("#3b82f6", "#16a34a", "#a855f7", "#0891b2", "#db2777")
_HELD_OUT_COLOUR = "#f97316"
_TICKS = 4
_MOST_CURVES = len(_CURVE_COLOURS)


@dataclass(frozen=True, slots=True)
class FigurePoint:
    """A mean at a step, with the ends of its interval where there is one."""

    step: float
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class RunFigure:
    """What is drawn."""

    curves: Mapping[str, Sequence[FigurePoint]]
    """Name -> its points by step."""
    held_out: Sequence[FigurePoint] = ()
    steps: int = 0
    """Steps that are planned; the axis has room for them."""
    title: str = ""
    marks: Mapping[float, str] = field(default_factory=dict)
    """Step -> what began there."""

    @classmethod
    def of_view(cls, run: Mapping[str, Any]) -> RunFigure:
        """Of what the dashboard's view `run` answers."""
        roles = [role for role, points in run["rewards"].items() if role and points]
        shown = roles if len(roles) > 1 else [role for role, points in run["rewards"].items() if points][:1]
        curves = {role or "reward": list(map(_read_point, run["rewards"][role])) for role in shown[:_MOST_CURVES]}
        if not curves:
            curves = {"reward": _kept_points(run["curves"])}
        held_out = [_read_point(each) for each in run["evaluations"] if each["mean"] is not None]
        marks = {float(each["step"]): each["kind"] for each in run["findings"] if each["step"] > 0}
        return cls(curves, held_out, int(run["settings"].get("steps") or 0), run["name"], marks)

    def draw(self) -> str:
        """The SVG element; '' where there is nothing to draw."""
        points = [point for curve in (*self.curves.values(), self.held_out) for point in curve]
        if not points:
            return ""
        axes = _Axes.around(points, self.steps)
        label = escape(make_line(f"{self.title}: reward in each step and held-out scores"), quote=True)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{label}" style="max-width:{_WIDTH}px;width:100%;height:auto" font-family="sans-serif" '
            'font-size="11" fill="currentColor">',
            *axes.draw(),
            *self._draw_marks(axes),
        ]
        for (name, curve), colour in zip(self.curves.items(), _CURVE_COLOURS, strict=False):
            parts += _draw_curve(name, curve, colour, axes)
        parts += [_draw_score(point, axes) for point in self.held_out]
        return "".join([*parts, *self._draw_legend(), "</svg>"])

    def _draw_marks(self, axes: _Axes) -> Iterator[str]:
        for step, text in self.marks.items():
            x = axes.x(step)
            yield (
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_HELD_OUT_COLOUR}" '
                f'stroke-dasharray="3 3"><title>{escape(make_line(text))} since step {step:g}</title></line>'
            )

    def _draw_legend(self) -> Iterator[str]:
        named = [*zip(self.curves, _CURVE_COLOURS, strict=False)]
        named += [("held-out score, 95% interval", _HELD_OUT_COLOUR)] if self.held_out else []
        x = float(_LEFT)
        for name, colour in named:
            text = make_line(name)[:40]
            yield f'<rect x="{x:.0f}" y="6" width="10" height="10" rx="2" fill="{colour}"/>'
            yield f'<text x="{x + 14:.0f}" y="15">{escape(text)}</text>'
            x += 26 + 6.2 * len(text)


@dataclass(frozen=True, slots=True)
class _Axes:
    """The range of both axes, and where values lie on them."""

    last: float
    low: float
    high: float

    @classmethod
    def around(cls, points: Sequence[FigurePoint], steps: int) -> _Axes:
        values = [v for each in points for v in (each.mean, each.low, each.high) if v is not None and math.isfinite(v)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0 if high > 0.5 else max(0.05, 1.25 * high)
        else:
            margin = 0.05 * (high - low) or 1.0
            low, high = low - margin, high + margin
        return cls(max(1.0, float(steps), *(each.step for each in points)), low, high)

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self.last

    def y(self, value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (self.high - value) / (self.high - self.low)

    def draw(self) -> Iterator[str]:
        for at in range(_TICKS + 1):
            value = self.low + (self.high - self.low) * at / _TICKS
            y = self.y(value)
            yield (
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
                f'stroke-opacity="{0.4 if not at else 0.12}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{format_number(value)}</text>'
            )
        every = max(1, round(self.last / 5))
        for step in sorted({*range(0, int(self.last) + 1 - every // 2, every), int(self.last)}):
            yield f'<text x="{self.x(step):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{step}</text>'
        yield f'<text x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">step</text>'


def _draw_curve(name: str, points: Sequence[FigurePoint], colour: str, axes: _Axes) -> Iterator[str]:
    banded = [each for each in points if each.low is not None and each.high is not None]
    if len(banded) > 1:
        upper = [f"{axes.x(each.step):.1f},{axes.y(each.high or 0.0):.1f}" for each in banded]
        lower = [f"{axes.x(each.step):.1f},{axes.y(each.low or 0.0):.1f}" for each in reversed(banded)]
        yield f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.15"/>'
    line = " ".join(f"{axes.x(each.step):.1f},{axes.y(each.mean):.1f}" for each in points)
    title = f"<title>{escape(make_line(name))}</title>"
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8">{title}</polyline>'
    if len(points) == 1:
        yield f'<circle cx="{axes.x(points[0].step):.1f}" cy="{axes.y(points[0].mean):.1f}" r="3" fill="{colour}"/>'


def _draw_score(point: FigurePoint, axes: _Axes) -> str:
    """A held-out score, with its interval as a whisker."""
    x, told = axes.x(point.step), f"held-out score {point.mean:.3f}"
    whisker = ""
    if point.low is not None and point.high is not None:
        whisker = (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(point.low):.1f}" y2="{axes.y(point.high):.1f}" '
            f'stroke="{_HELD_OUT_COLOUR}" stroke-width="1.6"/>'
        )
        told += f" [{point.low:.3f}, {point.high:.3f}]"
    circle = f'<circle cx="{x:.1f}" cy="{axes.y(point.mean):.1f}" r="4" fill="{_HELD_OUT_COLOUR}">'
    return f"{whisker}{circle}<title>{told} at step {point.step:g}</title></circle>"


def _read_point(values: Mapping[str, Any]) -> FigurePoint:
    return FigurePoint(float(values["step"]), float(values["mean"]), values["low"], values["high"])


def _kept_points(curves: Mapping[str, Any]) -> list[FigurePoint]:
    """Without stored rollouts, the means that each step kept."""
    values = curves["series"].get("reward_mean") or [None] * len(curves["steps"])
    return [FigurePoint(step, mean) for step, mean in zip(curves["steps"], values, strict=True) if mean is not None]
