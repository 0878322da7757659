"""A mean with its confidence interval, and the difference of two measurements of the same tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_SEED = 20_240_514
# Signs of so many values or fewer are all tried; of more, RESAMPLES draws.
_EXACT = 13
# Resamples are drawn in blocks of at most so many values, to bound memory.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval that covers the true mean with the level's probability."""

    mean: float
    """NaN if there are no values."""
    low: float
    """NaN where no interval can be given: no values, or a single one that is not 0 or 1."""
    high: float
    n: int
    """How many values."""
    method: str
    """'wilson', 'bootstrap', or 'none' where no interval can be given."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no NaN: None instead."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Interval:
        """Undoes `as_dict`; other keys are ignored."""
        numbers = (values[name] for name in ("mean", "low", "high"))
        mean, low, high = (math.nan if number is None else float(number) for number in numbers)
        return cls(mean, low, high, int(values["n"]), str(values["method"]))

    def __str__(self) -> str:
        if not self.n:
            return "no values"
        bounds = f"[{self.low:.3f}, {self.high:.3f}]" if self.method != "none" else "no interval"
        return f"{self.mean:.3f} {bounds} n={self.n}"


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of `values` with an interval of confidence `level`.

    The Wilson score interval (Wilson 1927) when every value is 0 or 1, so that 200 of 200 is not 'exactly 1'; else a
    bootstrap (Efron 1979) with 10,000 resamples and a fixed seed, its percentiles wider apart for small n (the expanded
    percentile interval of Hesterberg, doi:10.1080/00031305.2015.1089789). ValueError for a value that is not finite.
    """
    data = np.asarray(values, np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"an interval of values that are not finite: {data[~np.isfinite(data)][0]}")
    if not len(data):
        return Interval(math.nan, math.nan, math.nan, 0, "none")
    if np.isin(data, (0.0, 1.0)).all():
        return _wilson(float(data.mean()), len(data), level)
    if len(data) == 1:
        return Interval(float(data[0]), math.nan, math.nan, 1, "none")
    return _bootstrap(data, level)


def difference(before: Sequence[float], after: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of after[i] - before[i] over the same n tasks, with a bootstrap interval over tasks.

    Pairing takes out how much tasks differ from each other. The interval excludes 0 only where the sign-flip test
    (Fisher 1935) rejects 0 too: that is exact for any n if before and after are alike, where a bootstrap is misled by
    few tasks that changed. NaN bounds where so few changed that not even all of them changing the same way would tell
    it from chance (2 / 2^changed > 1 - level; under six at 95%). ValueError for unequal lengths.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired difference of {len(before)} and {len(after)} values")
    deltas = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    if 2.0 ** (1 - np.count_nonzero(deltas)) > 1 - level:
        return Interval(float(deltas.mean()) if len(deltas) else math.nan, math.nan, math.nan, len(deltas), "none")
    found = _bootstrap(deltas, level)
    above, below = _signs(deltas[deltas != 0])
    chance = 0.5 - level / 2
    return replace(
        found,
        low=found.low if above <= chance else min(found.low, 0.0),
        high=found.high if below <= chance else max(found.high, 0.0),
    )


def _signs(deltas: NDArray[np.float64]) -> tuple[float, float]:
    """How often a sum at least as high, and one at least as low, comes of these values with signs drawn at random."""
    count, total = len(deltas), float(deltas.sum())
    if count <= _EXACT:
        sums, drawn = (1.0 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)) @ deltas, 0
    else:
        generator = np.random.default_rng(_SEED)
        sums = np.concatenate([_flipped(generator, block, deltas) for block in _blocks(count)])
        drawn = 1  # what is there is one of the draws: without it the test would not be exact
    slack = 1e-9 * float(np.abs(deltas).sum())
    above, below = np.count_nonzero(sums >= total - slack), np.count_nonzero(sums <= total + slack)
    return (above + drawn) / (len(sums) + drawn), (below + drawn) / (len(sums) + drawn)


def _flipped(generator: np.random.Generator, count: int, deltas: NDArray[np.float64]) -> NDArray[np.float64]:
    """[count] sums of the values with signs drawn at random."""
    width = -(-len(deltas) // 8)
    drawn = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
    sums: NDArray[np.float64] = 2 * (np.unpackbits(drawn, axis=1, count=len(deltas)) @ deltas) - deltas.sum()
    return sums


def _wilson(mean: float, n: int, level: float) -> Interval:
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half), n, "wilson")


def _bootstrap(data: NDArray[np.float64], level: float) -> Interval:
    generator = np.random.default_rng(_SEED)
    means = np.concatenate(
        [data[generator.integers(len(data), size=(block, len(data)), dtype=np.uint32)].mean(axis=1)
         for block in _blocks(len(data))]
    )  # fmt: skip
    tail = _tail(len(data), level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(data.mean()), float(low), float(high), len(data), "bootstrap")


def _blocks(width: int) -> list[int]:
    """Numbers of resamples of `width` values that are drawn at once."""
    rows = max(1, _BLOCK // width)
    return [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]


def _tail(n: int, level: float) -> float:
    """The percentile of a bootstrap of n >= 2 values at which an interval begins: less for few than for many."""
    normal, v = NormalDist(), n - 1
    z = normal.inv_cdf(0.5 + level / 2)
    # Student's t by v degrees of freedom (Abramowitz and Stegun 1964, 26.7.5).
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    t = sum(term / v**power for power, term in enumerate(terms))
    return normal.cdf(-math.sqrt(n / v) * t)
