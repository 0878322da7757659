"""A curve in one line of text: a column for each step, or for several where there are more steps than columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_sdk.terminal.screen import Screen

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.,-=+*#"
Values = Sequence[float | None]


def draw_curve(values: Values, screen: Screen, width: int, limits: tuple[float, float] | None = None) -> str:
    """One character for the mean of each column, a space where nothing is known. `limits`: lowest and highest value;
    by default those of `values`."""
    columns = _average(values, max(1, width))
    low, high = limits or find_limits(values)
    bars = _BARS if screen.signs else _PLAIN_BARS
    return "".join(" " if each is None else bars[_level(each, low, high, len(bars))] for each in columns)


def find_limits(*curves: Values) -> tuple[float, float]:
    """The lowest and the highest value, for curves that are compared."""
    known = [value for values in curves for value in values if value is not None and math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 0.0)


def _average(values: Values, width: int) -> list[float | None]:
    count = len(values)
    if count <= width:
        return [value if value is not None and math.isfinite(value) else None for value in values]
    parts = [values[at * count // width : (at + 1) * count // width] for at in range(width)]
    return [_mean(part) for part in parts]


def _mean(values: Values) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _level(value: float, low: float, high: float, levels: int) -> int:
    if high <= low:
        return 0 if value <= 0 else levels // 2
    return min(levels - 1, max(0, int((value - low) / (high - low) * levels)))
