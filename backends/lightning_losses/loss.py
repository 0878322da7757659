"""The policy losses, as pure functions of the log-probabilities of M tokens; nothing is summed or averaged here.

With one entry per token, `logprobs` the trainer's log-probability with gradient, `old` the trainer's before the batch's
first optimizer step, A the advantage, r = exp(logprobs - old):

    ppo(logprobs, old, advantages, clip_low=, clip_high=, clip_dual=0.0)      -> Surrogate(loss [M], clipped [M])
    gspo(logprobs, drift, advantages, clip_low=, clip_high=, clip_dual=0.0)   -> Surrogate; drift: mean log-ratio [M]
    cispo(logprobs, old, advantages, clip_low=, clip_high=)                   -> Surrogate
    sft(logprobs)                                                             -> [M]

and in the neighbouring modules

    ratio.sequence_sum(values, sequence), ratio.sequence_mean(values, sequence)     -> [M], one number per sequence
    ratio.importance(log_ratio, kind=, low=, high=)     -> ImportanceWeights(weights [M], outside [M]), no gradient
    divergence.divergence(logprobs, reference, estimator)          -> [M]
    preference.dpo(margins, beta), preference.dpo_slope(margins, beta)              -> [P]

A batch's loss is the sum over its tokens of weight * (importance * surrogate + coefficient * divergence - entropy bonus
+ value term), where the weights come with the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Bound of a log-ratio before exp(), so that float32 does not overflow; and of the mean log-ratio of a sequence.
LARGEST = 20.0
_LARGEST_OF_SEQUENCE = 10.0


class Surrogate(NamedTuple):
    """The loss of each token, and where it was clipped."""

    loss: Tensor
    """[M] to be minimized."""
    clipped: Tensor
    """[M] bool, without gradient. With 'ppo' and 'gspo' such a token has no policy gradient."""


def ppo(
    logprobs: Tensor, old: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, clip_dual: float = 0.0
) -> Surrogate:
    """The clipped ratio of each token: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).

    PPO (arXiv:1707.06347, eq. 7) with DAPO's separate upper bound (arXiv:2503.14476, eq. 10). With `clip_dual` = c > 0
    and A < 0 the loss is at most -c A (dual-clip PPO, arXiv:1912.09729, eq. 5). All arguments [M].
    """
    ratio = (logprobs - old).clamp(-LARGEST, LARGEST).exp()
    return _clip_surrogate(ratio, advantages, clip_low, clip_high, clip_dual)


def gspo(
    logprobs: Tensor, drift: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, clip_dual: float = 0.0
) -> Surrogate:
    """The clipped ratio of the whole sequence: `ppo` with r = exp(drift) in value.

    GSPO (arXiv:2507.18071) in its token form (eq. 14), which with equal advantages has the gradient of eq. 5: s_t =
    sg[s] pi / sg[pi], where log s = `drift` is the mean of logprobs - old over all tokens of the sequence (eq. 7), as
    `ratio.sequence_mean` gives it. All arguments [M]; no gradient flows through `drift`.
    """
    ratio = (logprobs - logprobs.detach() + drift.detach()).clamp(max=_LARGEST_OF_SEQUENCE).exp()
    return _clip_surrogate(ratio, advantages, clip_low, clip_high, clip_dual)


def cispo(logprobs: Tensor, old: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Surrogate:
    """Clipped weights: -sg[clip(r, 1 - clip_low, 1 + clip_high)] A logprobs. Every token keeps a gradient.

    CISPO (arXiv:2506.13585, eq. 4 and 5). All arguments [M].
    """
    ratio = (logprobs - old).detach().clamp(-LARGEST, LARGEST).exp()
    weights = ratio.clamp(1 - clip_low, 1 + clip_high)
    return Surrogate(-weights * advantages * logprobs, ratio != weights)


def sft(logprobs: Tensor) -> Tensor:
    """[M] negative log-likelihood."""
    return -logprobs


def _clip_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float, dual: float) -> Surrogate:
    free, bound = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    loss, clipped = torch.maximum(free, bound), bound > free
    if dual:
        most = -advantages * dual
        punished = advantages < 0
        clipped = clipped | (punished & (loss > most))
        loss = torch.where(punished, torch.minimum(most, loss), loss)
    return Surrogate(loss, clipped.detach())
