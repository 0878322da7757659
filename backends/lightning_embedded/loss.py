"""The policy loss, as a pure function of log-probabilities.

With one token per entry, `lp` the trainer's log-probability with gradient, `old` the trainer's before this batch's
first step (detached), `mu` the sampler's, A the advantage, w the token's weight in the batch:

    rho  = min(exp(old - mu), cap)                  truncated importance sampling; 1 where cap = 0
    r    = exp(lp - old)
    pg   = -rho * min(r A, clip(r, 1 - low, 1 + high) A)
    k3   = exp(ref - lp) - (ref - lp) - 1
    loss = sum of w (pg + kl k3)

The clipped term is equation 10 of DAPO (arXiv:2503.14476): PPO's with a separate upper bound. `rho` is the truncated
importance sampling of IMPALA (arXiv:1802.01561, eq. 1) between the trainer's and the sampler's policy, as used for
engines that differ from their trainer by Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL
Training" (2025). `k3` is equation 4 of GRPO (arXiv:2402.03300), Schulman's estimator.

In a batch's first pass `old` is `lp` detached, so r = 1 in value, clipping does nothing, and the gradient is
rho A grad lp: the correction for an older or numerically different sampler is all in `rho`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Bound of a log-ratio before it is exponentiated, so that no float32 overflows.
_LARGEST = 20.0


class Loss(NamedTuple):
    """The loss and what it did, each [M] without gradient but the first."""

    value: Tensor
    """Scalar: the weighted sum."""
    clipped: Tensor
    """[M] bool: the clipped branch was the smaller, so the token has no policy gradient."""
    truncated: Tensor
    """[M] bool: the importance weight was cut at the cap."""
    divergence: Tensor
    """[M] k3 to the reference; 0 where there is none."""


def policy_loss(
    logprobs: Tensor,
    sampler: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    clip_low: float,
    clip_high: float,
    cap: float,
    kl: float = 0.0,
) -> Loss:
    """The loss of M tokens, all arguments [M] float32; `old` None means `logprobs`, detached.

    A token of weight 0 has a gradient of exactly 0, even where its numbers are not finite.
    """
    counts = weights != 0
    logprobs, sampler, advantages = (torch.where(counts, each, 0.0) for each in (logprobs, sampler, advantages))
    old = logprobs.detach() if old is None else torch.where(counts, old, 0.0)
    importance, truncated = _importance(old, sampler, cap)
    ratio = (logprobs - old).clamp(-_LARGEST, _LARGEST).exp()
    free, bound = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    per_token = -importance * torch.minimum(free, bound)
    divergence = torch.zeros_like(logprobs)
    if reference is not None:
        divergence = k3(logprobs, torch.where(counts, reference, 0.0))
        per_token = per_token + kl * divergence
    return Loss((weights * per_token).sum(), (bound < free).detach(), truncated, divergence.detach())


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """[M] estimate of KL(policy || reference) from the policy's own samples: never negative, unbiased."""
    difference = (reference - logprobs).clamp(-_LARGEST, _LARGEST)
    return difference.exp() - difference - 1


def _importance(old: Tensor, sampler: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Weights without gradient, and where they were cut."""
    if cap == 0:
        return torch.ones_like(old), torch.zeros_like(old, dtype=torch.bool)
    ratio = (old - sampler).clamp(-_LARGEST, _LARGEST).exp()
    return ratio.clamp(max=cap), ratio > cap
