"""The reward curve of a run, as a PNG and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_sdk.results.score import Interval

Point = tuple[int, float]
"""A step and the mean reward of its rollouts."""
HeldOutPoint = tuple[int, Interval]
"""A step and the score on held-out tasks after it."""

_TRAIN, _HELD_OUT, _INK = "#2563eb", "#d9480f", "#343a40"
_ROLES = ("#2b8a3e", "#9c36b5", "#e67700", "#0b7285", "#c2255c", "#5f3dc4")


def smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """[N] `values` averaged with a Gaussian window of N / 25 steps, at least one; the window is cut at both ends."""
    data = np.asarray(values, np.float64)
    distance = np.arange(len(data))[:, None] - np.arange(len(data))[None, :]
    weights = np.exp(-0.5 * (distance / max(1.0, len(data) / 25)) ** 2)
    return np.asarray(weights @ data / weights.sum(axis=1)) if len(data) else data


def draw_png(
    path: Path,
    rewards: Sequence[Point],
    held_out: Sequence[HeldOutPoint],
    title: str = "",
    roles: Mapping[str, Sequence[Point]] | None = None,
) -> None:
    """Write the curve to `path`: reward per step, smoothed, and held-out scores with their intervals; thinner, each
    role's reward."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    roles = {role: points for role, points in (roles or {}).items() if points}
    _draw_rewards(axes, rewards)
    _draw_roles(axes, roles)
    _draw_held_out(axes, held_out)
    axes.set_xlabel("step")
    axes.set_ylabel("reward")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = [*rewards, *(point for points in roles.values() for point in points)]
    last = max([1, *(step for step, _ in [*drawn, *held_out])])
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.set_ylim(*_limits(drawn, held_out))
    axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#adb5bd")
    axes.tick_params(colors=_INK)
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=_INK)
    if rewards or held_out:
        figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path)


def _draw_rewards(axes: Any, rewards: Sequence[Point]) -> None:
    if not rewards:
        return
    steps, values = zip(*rewards, strict=True)
    many = len(steps) >= 5
    # Few points say more than a smoothed line through them.
    axes.plot(
        steps,
        values,
        color=_TRAIN,
        alpha=0.35 if many else 1.0,
        linewidth=1,
        marker="o",
        markersize=3 if len(steps) <= 100 else 0,
        markeredgewidth=0,
        label="training, each step",
    )
    if many:
        axes.plot(steps, smooth(values), color=_TRAIN, linewidth=2.2, label="training, smoothed")


def _draw_roles(axes: Any, roles: Mapping[str, Sequence[Point]]) -> None:
    for place, (role, points) in enumerate(roles.items()):
        steps, values = zip(*points, strict=True)
        shown = smooth(values) if len(steps) >= 5 else values
        colour = _ROLES[place % len(_ROLES)]
        axes.plot(steps, shown, color=colour, alpha=0.8, linewidth=1, label=f"reward of {role}")


def _draw_held_out(axes: Any, held_out: Sequence[HeldOutPoint]) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    shown = _scored_points(held_out)
    if not shown:
        return
    below = [_width(mean, score.low) for _, mean, score in shown]
    above = [_width(score.high, mean) for _, mean, score in shown]
    axes.errorbar(
        [step for step, _, _ in shown],
        [mean for _, mean, _ in shown],
        yerr=[below, above],
        color=_HELD_OUT,
        fmt="D" if len(shown) < 3 else "D--",
        linewidth=1,
        elinewidth=1.6,
        capsize=4,
        markersize=5.5,
        zorder=5,
        clip_on=False,
        label="held-out tasks, 95% interval",
    )
    # Legible above a line, too.
    outline = [withStroke(linewidth=3, foreground="white")]
    for step, mean, score in {shown[0][0]: shown[0], shown[-1][0]: shown[-1]}.values():
        # Below its interval, and inwards: there the curves are seldom.
        lowest = mean if score.low is None else score.low
        axes.annotate(
            f"{mean:.3f}",
            (step, lowest),
            xytext=(0, -6),
            textcoords="offset points",
            va="top",
            ha="left" if step <= shown[-1][0] / 2 else "right",
            fontsize=9,
            color=_HELD_OUT,
            fontweight="bold",
            path_effects=outline,
            zorder=6,
        )


def draw_text(
    rewards: Sequence[Point],
    held_out: Sequence[HeldOutPoint],
    width: int = 80,
    height: int = 16,
    plain: bool = False,
) -> str:
    """The curve as `height` lines of at most `width` characters; `plain` leaves out colour codes."""
    if not rewards and not any(score.n for _, score in held_out):
        return "no rewards yet"
    import plotext  # noqa: PLC0415 - a third of a second

    figure = plotext.figure
    # plotext has one figure for the whole process.
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(max(width, 30), max(height, 8))
    told = []
    if rewards:
        steps, values = zip(*rewards, strict=True)
        marker = plotext.marker("braille", pixel="blue+")
        figure.draw(figure.signal(list(steps), smooth(values).tolist(), marker=marker).lines())
        told.append("⠤⠒ training reward, smoothed")
    if shown := _scored_points(held_out):
        marker = plotext.marker("●", pixel="orange+")
        figure.draw(figure.signal([step for step, _, _ in shown], [mean for _, mean, _ in shown], marker=marker))
        told.append("● held-out score")
    # A legend inside would hide the curve.
    figure.title("    ".join(told))
    figure.ruler("y", 0).lim(*_limits(rewards, held_out))
    last = max(step for step, _ in [*rewards, *held_out])
    figure.ruler("x", 0).ticks(_ticks(last))
    figure.label("step")
    text: str = figure.build().string(colorless=plain)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _ticks(last: int) -> list[int]:
    """About five round steps from 0 to `last`."""
    every = max(1, round(last / 5))
    return sorted({*range(0, last + 1 - every // 2, every), last})


def _limits(rewards: Sequence[Point], held_out: Sequence[HeldOutPoint]) -> tuple[float, float]:
    """Range of the y axis: 0 to 1 for rewards in that range, else what the values need."""
    values = [value for _, value in rewards]
    values += [v for _, score in held_out for v in (score.low, score.mean, score.high) if v is not None]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        return 0.0, 1.0 if high > 0.5 else max(0.05, 1.25 * high)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _scored_points(held_out: Sequence[HeldOutPoint]) -> list[tuple[int, float, Interval]]:
    """Step, mean and interval of the evaluations that have a score."""
    return [(step, score.mean, score) for step, score in held_out if score.mean is not None]


def _width(upper: float | None, lower: float | None) -> float:
    """0 where there is no interval: no bar."""
    return 0.0 if upper is None or lower is None else upper - lower
