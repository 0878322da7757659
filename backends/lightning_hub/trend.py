"""Trends: whether a number that is measured once a step rises, falls or moves at all, against its own noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Steps below which nothing is said of a trend.
FEWEST = 5
#: Of a slope over its standard error: one run in 100 without any trend has a larger one.
CLEAR = 2.6
#: Windows in which a peak is looked for, in steps.
_WINDOWS = (1, 2, 3, 5)


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through a number's values, n >= 3 of them."""

    first: float
    """Where the line begins."""
    last: float
    """Where it ends."""
    clear: float
    """Its slope over the slope's standard error; 0 for a line that is exactly level."""
    n: int

    @property
    def rises(self) -> bool:
        return self.n >= FEWEST and self.clear > CLEAR

    @property
    def falls(self) -> bool:
        return self.n >= FEWEST and self.clear < -CLEAR


def trend(values: Sequence[float]) -> Trend:
    """The least-squares line; noise is what is left over. ValueError for fewer than 3 values."""
    if len(values) < 3:
        raise ValueError(f"a trend of {len(values)} values")
    data = np.asarray(values, np.float64)
    time = np.arange(len(data)) - (len(data) - 1) / 2
    slope = float(time @ data / (time @ time))
    left = data - data.mean() - slope * time
    # Rounding is no noise: a number that never changes has no slope either.
    error = math.sqrt(max(float(left @ left), 1e-18 * float(data @ data)) / (len(data) - 2) / float(time @ time))
    half = slope * (len(data) - 1) / 2
    return Trend(float(data.mean()) - half, float(data.mean()) + half, slope / error if error else 0.0, len(data))


@dataclass(frozen=True, slots=True)
class Fall:
    """From the best window of steps to the last steps of a run."""

    peak: float
    at: int
    """Index of the best window's first value."""
    width: int
    """Of that window, in steps."""
    end: float
    """Mean of the last steps."""
    over: int
    """How many last steps."""
    clear: float
    """The difference over its standard error."""


def fall(values: Sequence[float], errors: Sequence[float]) -> Fall | None:
    """A fall of `values`, whose standard errors are `errors`: from the highest of the peaks from which it is about the
    clearest. None if they end at their best."""
    data, variances = np.asarray(values, np.float64), np.square(np.asarray(errors, np.float64))
    over = max(3, len(data) // 4)
    before = len(data) - over
    end, noise = float(data[-over:].mean()), float(variances[-over:].mean() / over) if over <= len(data) else 0.0
    found = [
        Fall(peak, at, width, end, over, (peak - end) / math.sqrt(noise + at_peak) if noise + at_peak else math.inf)
        for width in _WINDOWS
        for at, peak, at_peak in _means(data[: max(before, 0)], variances, width)
        if peak > end
    ]
    clearest = max((each.clear for each in found), default=0.0)
    return max((each for each in found if each.clear >= 0.8 * clearest), key=lambda each: each.peak, default=None)


def _means(data: NDArray[np.float64], variances: NDArray[np.float64], width: int) -> list[tuple[int, float, float]]:
    """Each window's begin, mean, and variance of the mean."""
    return [
        (at, float(data[at : at + width].mean()), float(variances[at : at + width].mean() / width))
        for at in range(len(data) - width + 1)
    ]


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing their mean."""
    data = np.asarray(values, np.float64)
    less = (data[:, None] > data[None, :]).sum(1)
    same = (data[:, None] == data[None, :]).sum(1)
    ranked: NDArray[np.float64] = less + (same - 1) / 2
    return ranked


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, with ties; NaN where one of them does not vary."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan
