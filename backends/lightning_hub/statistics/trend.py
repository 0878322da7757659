"""Trends: whether a number that is measured at each step rises or falls by more than its noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Fewest steps for a trend.
FEWEST = 5
#: A number of values for which Student's t is the normal distribution.
MANY = 10_000
#: Share of runs without a trend that are taken to have one, up or down.
CHANCE = 0.01
#: Widths of the windows in which a peak is searched, in steps.
_WINDOWS = (1, 2, 3, 5)


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through a number's values, n >= 3 of them, each with its weight."""

    first: float
    """Where the line begins."""
    last: float
    """Where it ends."""
    clear: float
    """Its slope over the slope's standard error; 0 for a line that is exactly level."""
    n: int
    error: float
    """Standard error of `last - first`."""

    @property
    def rises(self) -> bool:
        return self.n >= FEWEST and self.clear > clear_from(self.n)

    @property
    def falls(self) -> bool:
        return self.n >= FEWEST and self.clear < -clear_from(self.n)


def trend(values: Sequence[float], weights: Sequence[float] | None = None) -> Trend:
    """The least-squares line; noise is what is left over. ValueError for fewer than 3 values.

    `weights`: how much each value counts, such as the rollouts that it is the mean of; by default all count alike.
    """
    if len(values) < 3:
        raise ValueError(f"a trend of {len(values)} values")
    data = np.asarray(values, np.float64)
    weight = np.ones(len(data)) if weights is None else np.asarray(weights, np.float64)
    place = np.arange(len(data), dtype=np.float64)
    middle, mean = float(weight @ place / weight.sum()), float(weight @ data / weight.sum())
    time = place - middle
    squares = float(weight @ (time * time))
    slope = float(weight @ (time * data)) / squares
    left = data - mean - slope * time
    # Rounding is not noise: a number that never changes has no slope.
    noise = max(float(weight @ (left * left)), 1e-18 * float(weight @ (data * data)))
    error = math.sqrt(noise / (len(data) - 2) / squares)
    first, last = mean - slope * middle, mean + slope * (len(data) - 1 - middle)
    return Trend(first, last, slope / error if error else 0.0, len(data), error * (len(data) - 1))


def clear_from(n: int) -> float:
    """The slope of n values over its standard error, 5.8 of five and 2.6 of many, that CHANCE of the runs without any
    trend exceed: Student's t with n - 2 degrees of freedom (Abramowitz and Stegun 1964, 26.7.5)."""
    z, v = NormalDist().inv_cdf(1 - CHANCE / 2), n - 2
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / v**power for power, term in enumerate(terms)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A fall from the best window of steps to the last steps of a run."""

    peak: float
    at: int
    """Index of the best window's first value."""
    width: int
    """The width of that window, in steps."""
    end: float
    """Mean of the last steps."""
    over: int
    """The number of last steps."""
    clear: float
    """The difference over its standard error."""


def fall(values: Sequence[float], errors: Sequence[float], weights: Sequence[float] | None = None) -> Fall | None:
    """A fall of `values`, whose standard errors are `errors`: from the highest of the peaks from which it is about the
    clearest. None if they end at their best. `weights`: how much each value counts, by default all alike."""
    data, variances = np.asarray(values, np.float64), np.square(np.asarray(errors, np.float64))
    weight = np.ones(len(data)) if weights is None else np.asarray(weights, np.float64)
    over = max(3, len(data) // 4)
    before = len(data) - over
    if before < 1:
        return None
    end, noise = _mean(data[-over:], variances[-over:], weight[-over:])
    found = [
        Fall(
            peak=peak,
            at=at,
            width=width,
            end=end,
            over=over,
            clear=(peak - end) / math.sqrt(noise + at_peak) if noise + at_peak else math.inf,
        )
        for width in _WINDOWS
        for at in range(before - width + 1)
        for peak, at_peak in [_mean(*(each[at : at + width] for each in (data, variances, weight)))]
        if peak > end
    ]
    clearest = max((each.clear for each in found), default=0.0)
    return max((each for each in found if each.clear >= 0.8 * clearest), key=lambda each: each.peak, default=None)


def _mean(data: Floats, variances: Floats, weight: Floats) -> tuple[float, float]:
    """A window's mean, and the variance of that mean."""
    share = weight / weight.sum()
    return float(share @ data), float((share * share) @ variances)


def ranks(values: Sequence[float]) -> Floats:
    """Ranks from 0, ties sharing their mean."""
    data = np.asarray(values, np.float64)
    less = (data[:, None] > data[None, :]).sum(1)
    same = (data[:, None] == data[None, :]).sum(1)
    ranked: Floats = less + (same - 1) / 2
    return ranked


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation, with ties; NaN if one of them does not vary."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else math.nan
