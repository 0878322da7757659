"""Advantages: estimators as pure functions, from what was earned to one number for each call or token.

A baseline may depend on anything but the actions that it is subtracted from; then the gradient stays unbiased. 'rloo',
'running_mean' and 'reinforce' do so even if the policy decides when to stop: a rollout that is over is
represented by its last call, so the number of terms never depends on its own length (see `compare_by_call`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def returns_to_go(earned: Floats, discount: float = 1.0) -> Floats:
    """[S] returns of S calls: what was earned after each, plus `discount` ** n times what came n calls later."""
    returns = np.zeros(len(earned))
    later = 0.0
    for call in reversed(range(len(earned))):
        later = earned[call] + discount * later
        returns[call] = later
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
    "rloo": rloo,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "reinforce++_baseline": dr_grpo,
}


def compare_by_call(returns: Sequence[Floats], estimator: Callable[[Floats], Floats]) -> list[Floats]:
    """[S_i] advantages of G rollouts with S_i >= 1 calls, each call compared with the same call of the others.

    A rollout that is over before that call is represented by its last one, so each baseline has the same number of
    terms however long the rollout is. Subtracting the mean of only those that reached the call, itself included,
    makes every further call look better or worse than it is (MT-GRPO, arXiv:2505.11821; VERL's issue 7244).
    """
    longest = max(map(len, returns), default=0)
    table = np.array([[each[min(call, len(each) - 1)] for call in range(longest)] for each in returns])
    columns = np.array([estimator(column) for column in table.T]).T if longest else table
    return [row[: len(each)] for row, each in zip(columns, returns, strict=True)]


def whiten(values: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.float32]]:
    """The masked values of all arrays scaled to mean 0 and variance 1, with 0 elsewhere (the normalised advantage of
    REINFORCE++, arXiv:2501.03262). The variance has n - 1 in its denominator and 1e-8 added, as in VERL's
    `masked_whiten`."""
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

    `rewards` after each token, `values` before each token, `ends`: the token is the last of its call, where `discount`
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
