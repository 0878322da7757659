"""Numbers, scores and durations as people read them; the page of the dashboard writes them in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "-"


def format_number(value: float | None, digits: int = 3) -> str:
    """Three digits that count, or all of those before the point."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return UNKNOWN
    size = abs(value)
    if (float(value).is_integer() and size < 1e15) or size >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.1e}" if size < 1e-3 else f"{value:.{digits}g}"


def format_score(value: float | None, sign: str = "") -> str:
    """Three decimals; `sign` '+' for a difference."""
    return UNKNOWN if value is None or value != value else f"{value:{sign}.3f}"  # noqa: PLR0124 - NaN


def format_interval(score: Mapping[str, Any] | None, sign: str = "") -> str:
    """'0.970 [0.936, 0.989]', from an `Interval` as plain data."""
    if score is None or score.get("mean") is None:
        return UNKNOWN
    mean = format_score(score["mean"], sign)
    if score.get("low") is None:
        return mean
    return f"{mean} [{format_score(score['low'], sign)}, {format_score(score['high'], sign)}]"


def format_seconds(seconds: float | None) -> str:
    """'350 ms', '12.3 s', '3 min 20 s' or '2 h 5 min'."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
