"""Bounds of the mean of a distribution from a sample of it, for values in a known range, of any shape and number.

Gaffke's bounds (Mathematical Methods of Statistics 14, 2005; Learned-Miller and Thomas, arXiv:1905.06208). For values
of 0 and 1 they are those of Clopper and Pearson (1934), and for differences of 0 and 1 they leave out 0 exactly where
the exact sign test rejects it; there they are proven. For other values in a bounded range, neither a
distribution for which they fail nor a proof that there is none is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Pairs of values above and below the mean, at most, for which a chance is computed exactly.
_EXACT_PAIRS = 40_000
#: Precision of a bound, as a part of the range.
_PRECISION = 1e-5


def mean_bounds(values: Sequence[float], low: float, high: float, error: float) -> tuple[float, float]:
    """The lowest and the highest mean that fits n >= 1 values from `low` to `high`, each wrong with chance `error`."""
    data = np.asarray(values, np.float64)
    return _lower(data, low, high, error), -_lower(-data, -high, -low, error)


def chance_of(values: Sequence[float], low: float, mean: float) -> float:
    """An upper bound of the chance of values as high as these if the true mean is `mean` and none is lower than `low`.

    The chance that a mean of the values and of `low`, with weights drawn from all that there are (a flat Dirichlet
    distribution), is `mean` at most.
    """
    return _chance(np.append(np.asarray(values, np.float64), low) - mean)


def _chance(data: NDArray[np.float64]) -> float:
    """The chance that a weighted mean of these is 0 or less."""
    above, below = data[data > 0], -data[data < 0]
    if not len(above):
        return 1.0
    if not len(below):
        return 0.0
    return _race(above, below) if len(above) * len(below) <= _EXACT_PAIRS else _saddlepoint(data)


def _lower(data: NDArray[np.float64], low: float, high: float, error: float) -> float:
    """The lower bound, by bisection: the chance rises with the mean."""
    under, over = low, float(data.max())
    while over - under > _PRECISION * (high - low):
        middle = (under + over) / 2
        if _chance(np.append(data, low) - middle) < error:
            under = middle
        else:
            over = middle
    return under


def _race(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    """The chance that a sum of `above`, each times a waiting time, is less than one of `below`.

    The times are exponential, all of the same mean. Each sum is a row of stages that are passed one after the other:
    whichever row is through first is the smaller sum. Waiting has no memory, so of the two stages under way the one of
    length b is passed before the one of length a with chance a / (a + b), whatever came before. Exact, and all terms
    are positive.
    """
    rows, columns = len(above), len(below)
    chance = np.zeros(rows + 1)  # of stage i above and stage `diagonal - i` below, from the last stages to the first
    chance[rows] = 1.0
    for diagonal in range(rows + columns - 2, -1, -1):
        first, last = max(0, diagonal - columns + 1), min(rows - 1, diagonal)
        a = above[first : last + 1]
        b = below[diagonal - last : diagonal - first + 1][::-1]
        here = (b * chance[first + 1 : last + 2] + a * chance[first : last + 1]) / (a + b)
        chance = np.zeros(rows + 1)
        chance[first : last + 1] = here
        chance[rows] = 1.0 if diagonal >= rows else 0.0
    return float(chance[0])


def _saddlepoint(data: NDArray[np.float64]) -> float:
    """`_race` for many values, within a few percent of the chance (Lugannani and Rice 1980)."""
    under, over = 1 / float(data.min()), 1 / float(data.max())
    at = 0.0
    for _ in range(100):
        scaled = data / (1 - data * at)
        slope, curvature = float(scaled.sum()), float((scaled**2).sum())
        under, over = (under, at) if slope > 0 else (at, over)
        nearer = at - slope / curvature
        nearer = nearer if under < nearer < over else (under + over) / 2
        if abs(nearer - at) < 1e-9 * (over - under):
            break
        at = nearer
    scaled = data / (1 - data * at)
    curvature = float((scaled**2).sum())
    root = math.copysign(math.sqrt(max(0.0, 2 * float(np.log1p(-data * at).sum()))), at)
    normal = NormalDist()
    if abs(root) < 1e-4:
        skew = 2 * float((scaled**3).sum()) / math.pow(curvature, 1.5)
        return 0.5 + skew / (6 * math.sqrt(2 * math.pi))
    return float(normal.cdf(root) + normal.pdf(root) * (1 / root - 1 / (at * math.sqrt(curvature))))
