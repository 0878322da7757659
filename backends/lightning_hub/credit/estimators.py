"""Advantages: estimators as pure functions, from what was earned to one number for each step or token.

A baseline may depend on anything but the actions that it is subtracted from; then the gradient stays unbiased. 'rloo',
'running_mean' and 'reinforce' keep to that also where the policy decides when to stop: a rollout that is over stands
for its last step, so that the number of terms never depends on the rollout's own length (see `by_step`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def to_go(earned: Floats, discount: float = 1.0) -> Floats:
    """[S] returns of S steps: what was earned after each and later, `discount` ** n of what came n steps later."""
    returns = np.zeros(len(earned))
    later = 0.0
    for step in reversed(range(len(earned))):
        later = earned[step] + discount * later
        returns[step] = later
    return returns


def rloo(values: Sequence[float] | Floats) -> Floats:
    """[G] values minus the mean of the other G - 1 (RLOO, arXiv:2402.14740); 0 for a group of one."""
    centred = dr_grpo(values)
    return np.asarray(centred * (len(centred) / max(1, len(centred) - 1)))


def dr_grpo(values: Sequence[float] | Floats) -> Floats:
    """[G] values minus their mean (Dr. GRPO, arXiv:2503.20783, section 3.2): G - 1 of G times RLOO's."""
    # Rewards are float32: sums that only differ by rounding in float64 are equal, and carry no signal.
    rounded = np.asarray(values, np.float32).astype(np.float64)
    if len(rounded) < 2 or not np.ptp(rounded):
        return np.zeros(len(rounded))
    return np.asarray(rounded - rounded.mean())


def grpo(values: Sequence[float] | Floats) -> Floats:
    """[G] (value - mean) / (deviation + 1e-6) (GRPO, arXiv:2402.03300, section 4.1.2); the deviation has G - 1 in its
    denominator, as VERL and TRL compute it."""
    centred = dr_grpo(values)
    return centred / (centred.std(ddof=1) + 1e-6) if centred.any() else centred


#: Estimators that compare the rollouts of a group: [G] values -> [G] advantages.
COMPARED: dict[str, Callable[[Floats], Floats]] = {
    "rloo": rloo, "grpo": grpo, "dr_grpo": dr_grpo, "reinforce++_baseline": dr_grpo,
}  # fmt: skip


def by_step(returns: Sequence[Floats], estimator: Callable[[Floats], Floats]) -> list[Floats]:
    """[S_i] advantages of G rollouts with S_i >= 1 steps, each step compared with the same step of the others.

    A rollout that is over before that step stands for its last one. So each baseline has the same number of terms,
    however long the rollout itself is: subtracting the mean of those only that reached the step, one's own included,
    makes every further step look better or worse than it is (MT-GRPO, arXiv:2505.11821; VERL's issue 7244).
    """
    longest = max(map(len, returns), default=0)
    table = np.array([[each[min(step, len(each) - 1)] for step in range(longest)] for each in returns])
    columns = np.array([estimator(column) for column in table.T]).T if longest else table
    return [row[: len(each)] for row, each in zip(columns, returns, strict=True)]


def whiten(values: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float32]]:
    """The masked values of all arrays brought to mean 0 and variance 1, 0 elsewhere (the normalised
    advantage of REINFORCE++, arXiv:2501.03262); the variance has n - 1 in its
    denominator and 1e-8 added, as in VERL's `masked_whiten`."""
    found = [each[mask] for each, mask in zip(values, masks, strict=True)]
    flat = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    if len(flat) < 2:
        return [np.zeros_like(each) for each in values]
    mean, scale = flat.mean(), 1 / np.sqrt(flat.var(ddof=1) + 1e-8)
    return [
        np.where(mask, (each - mean) * scale, 0).astype(np.float32) for each, mask in zip(values, masks, strict=True)
    ]


def gae(
    rewards: Floats, values: Floats, ends: NDArray[np.bool_], discount: float, decay: float, after: tuple[float, float]
) -> Floats:
    """[T] generalised advantage estimates of T sampled tokens in a row (arXiv:1506.02438, eq. 16).

    `rewards` after each token, `values` before each token, `ends`: the token is the last of its step, where `discount`
    applies; `decay` is lambda, per token; `after`: value and estimate of the token that follows the last one, (0, 0) at
    the end of a rollout.
    """
    estimates = np.zeros(len(rewards))
    value, estimate = after
    for t in reversed(range(len(rewards))):
        gamma = discount if ends[t] else 1.0
        estimate = rewards[t] + gamma * value - values[t] + gamma * decay * estimate
        value = values[t]
        estimates[t] = estimate
    return estimates
