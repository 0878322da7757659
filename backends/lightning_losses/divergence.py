"""The divergence from the reference model, estimated from the policy's own samples."""

from __future__ import annotations

from torch import Tensor

from lightning_losses.loss import LARGEST

#: k3 grows exponentially where the reference finds the policy's samples unlikely: its value and gradient are bounded.
_LARGEST_K3 = 10.0


def divergence(logprobs: Tensor, reference: Tensor, estimator: str) -> Tensor:
    """[M] estimates of KL(policy || reference), with gradient; both arguments [M].

    With d = reference - logprobs: 'k1' -d, 'k2' d^2 / 2, 'k3' min(exp(d) - d - 1, 10) (Schulman, "Approximating KL
    divergence", 2020; k3 is equation 4 of GRPO, arXiv:2402.03300). As values, k1 and k3 are unbiased. As loss terms,
    which they are here, only k2 has the expected gradient of the divergence, and k1 has none.
    """
    difference = reference - logprobs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return 0.5 * difference.square()
    difference = difference.clamp(-LARGEST, LARGEST)
    return (difference.exp() - difference - 1).clamp(max=_LARGEST_K3)
