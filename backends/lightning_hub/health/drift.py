"""Drift: how far the policy moved, measured by its answers to the same prompts before and after.

Nothing is computed again: an engine sends the log-probability of each token that it samples, so where two versions
sampled the same tokens after the same prompt, the difference is what the change of the weights did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_hub.rollout import Rollout
from lightning_sdk.trace.call import Call

#: Fewest tokens and prompts for a measurement.
_TOKENS, _PROMPTS = 50, 4


@dataclass(frozen=True, slots=True)
class Drift:
    """How two versions of the policy differ."""

    prompts: int
    same: int
    """Prompts to which both gave the same answer, token for token."""
    moved: float
    """Mean absolute difference of the log-probability of one token, in nats, over the tokens that both sampled."""


def drift(before: Sequence[Rollout], after: Sequence[Rollout]) -> Drift | None:
    """The drift in the first trainable calls of the same tasks; None if too few prompts and tokens are shared."""
    later = {rollout.task_id: call for rollout in after if (call := _first(rollout)) is not None}
    prompts, same, differences = 0, 0, list[float]()
    for rollout in before:
        one, other = _first(rollout), later.get(rollout.task_id)
        if one is None or other is None or one.prompt_ids != other.prompt_ids or one.request != other.request:
            continue
        shared, alike = _compare(one, other)
        prompts, same = prompts + 1, same + alike
        differences += shared
    if prompts < _PROMPTS or len(differences) < _TOKENS:
        return None
    return Drift(prompts, same, float(np.mean(differences)))


def _first(rollout: Rollout) -> Call | None:
    """The first call that can be compared."""
    calls = (call for call in rollout.calls if call.meta.trainable and call.prompt_ids and len(call.choices) == 1)
    return next((call for call in calls if _numbers(call)), None)


def _numbers(call: Call) -> bool:
    choice = call.choices[0]
    return bool(choice.token_ids) and len(choice.token_ids) == len(choice.logprobs)


def _compare(one: Call, other: Call) -> tuple[list[float], bool]:
    """Differences of log-probability over the tokens that both begin with, and whether all tokens are the same."""
    (ids, others), (values, later) = (
        [np.frombuffer(getattr(call.choices[0], name), kind) for call in (one, other)]
        for name, kind in (("token_ids", "<i4"), ("logprobs", "<f4"))
    )
    length = min(len(ids), len(others))
    differs = ids[:length] != others[:length]
    shared = int(differs.argmax()) if differs.any() else length
    return [float(each) for each in np.abs(values[:shared] - later[:shared])], len(ids) == len(others) == shared
