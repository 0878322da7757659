"""A mean with its confidence interval, and the difference of two measurements of the same tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_hub.statistics.mean_bounds import mean_bounds
from lightning_hub.statistics.reward_range import FEWEST, FEWEST_TRAINED, RangeSource, RewardRange, reward_range
from lightning_sdk.results.score import Interval

_SET = "set evaluation.reward_low and evaluation.reward_high"


def interval(values: Sequence[float], level: float = 0.95, within: RewardRange | None = None) -> Interval:
    """Mean of `values` with an interval of confidence `level`, for values that lie `within` a range.

    Without `within` the range is taken from the values, see `reward_range`. The interval is that of Clopper and Pearson
    if every value is 0 or 1, else Gaffke's, see `mean_bounds`. ValueError for a value that is not finite.
    """
    data = _finite(values)
    within = within or reward_range(data.tolist())
    missing = _missing(data, within, len(data))
    if within is None or missing:
        return _no_interval(data, missing)
    binary = (within.low, within.high) == (0.0, 1.0) and bool(np.isin(data, (0.0, 1.0)).all())
    return _bounded_interval(data, within.low, within.high, level, "clopper-pearson" if binary else "gaffke")


def difference(
    before: Sequence[float], after: Sequence[float], level: float = 0.95, within: RewardRange | None = None
) -> Interval:
    """Mean of after[i] - before[i] over the same n tasks, with an interval over tasks.

    Pairing takes out how much tasks differ from each other. `within` is the range of the values themselves; without it,
    it is taken from them. ValueError for unequal lengths and for values that are not finite.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired difference of {len(before)} and {len(after)} values")
    old, new = _finite(before), _finite(after)
    scores = np.concatenate([old, new])
    within = within or reward_range(scores.tolist())
    missing = _missing(scores, within, len(old))
    if not missing and within is not None and within.source == RangeSource.GUESSED:
        missing = f"too few training rollouts to know the range of the reward: at least {FEWEST_TRAINED}, or {_SET}"
    if within is None or missing:
        return _no_interval(new - old, missing)
    return _bounded_interval(new - old, -within.width, within.width, level, "gaffke")


def _bounded_interval(data: NDArray[np.float64], low: float, high: float, level: float, method: str) -> Interval:
    lower, upper = mean_bounds(data.tolist(), low, high, 0.5 - level / 2)
    return Interval(mean=float(data.mean()), low=lower, high=upper, n=len(data), method=method)


def _no_interval(data: NDArray[np.float64], missing: str) -> Interval:
    return Interval(
        mean=float(data.mean()) if len(data) else None, low=None, high=None, n=len(data), method="none", missing=missing
    )


def _missing(scores: NDArray[np.float64], within: RewardRange | None, tasks: int) -> str:
    """Why these scores give no interval; '' if they do."""
    if not tasks:
        return "no task has a score"
    if within is None:
        return f"all scores are {scores[0]:g}, and the range of the reward is not known"
    outside = next((each for each in scores.tolist() if not within.holds(each)), None)
    if outside is not None:
        return f"a score of {outside:g} lies outside evaluation.reward_low and evaluation.reward_high, {within}"
    if within.source in (RangeSource.SEEN, RangeSource.GUESSED) and tasks < FEWEST:
        return f"too few tasks ({tasks}) for a reward of unknown range: at least {FEWEST}, or {_SET}"
    return ""


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, np.float64)
    if not np.isfinite(data).all():
        raise ValueError(f"an interval of values that are not finite: {data[~np.isfinite(data)][0]}")
    return data
