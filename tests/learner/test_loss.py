"""The policy loss against its formula, written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from lightning_embedded.loss import k3, policy_loss

DAPO = {"clip_low": 0.2, "clip_high": 0.28, "cap": 2.0}


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def gradient(logprobs: Tensor, *args: Tensor, **options: object) -> Tensor:
    leaf = logprobs.clone().requires_grad_()
    policy_loss(leaf, *args, **{**DAPO, **options}).value.backward()  # type: ignore[arg-type]
    assert leaf.grad is not None
    return leaf.grad


def test_first_pass_is_the_importance_weighted_policy_gradient() -> None:
    """With `old` the present policy, the gradient is -w rho A, rho = trainer over sampler."""
    lp, mu, advantages, weights = tensor(-1.0, -2.0), tensor(-1.3, -1.5), tensor(1.5, -0.5), tensor(0.4, 0.6)
    expected = [-0.4 * math.exp(0.3) * 1.5, -0.6 * math.exp(-0.5) * -0.5]
    assert gradient(lp, mu, advantages, weights).tolist() == pytest.approx(expected)
    loss = policy_loss(lp, mu, advantages, weights, **DAPO)
    assert loss.value.item() == pytest.approx(sum(expected))
    assert not loss.clipped.any() and not loss.truncated.any()


def test_importance_weight_is_truncated_at_the_cap_only_from_above() -> None:
    """exp(3) is cut to the cap and counted, exp(-3) is kept."""
    lp, mu = tensor(-1.0, -4.0), tensor(-4.0, -1.0)
    loss = policy_loss(lp, mu, tensor(1, 1), tensor(0.5, 0.5), **DAPO)
    assert loss.truncated.tolist() == [True, False]
    assert gradient(lp, mu, tensor(1, 1), tensor(0.5, 0.5)).tolist() == pytest.approx([-1.0, -0.5 * math.exp(-3)])


def test_cap_zero_turns_the_correction_off() -> None:
    """Without correction the sampler's log-probabilities have no say."""
    for mu in (tensor(-1.0), tensor(-9.0)):
        assert gradient(tensor(-2.0), mu, tensor(3.0), tensor(1.0), cap=0.0).tolist() == pytest.approx([-3.0])


@pytest.mark.parametrize(
    ("step", "advantage", "clipped"),
    [
        (math.log(1.27), 1.0, False),
        (math.log(1.29), 1.0, True),
        (math.log(0.5), 1.0, False),
        (math.log(0.79), -1.0, True),
        (math.log(0.81), -1.0, False),
        (math.log(1.5), -1.0, False),
    ],
)
def test_clipping_has_separate_bounds_and_only_stops_going_further(
    step: float, advantage: float, clipped: bool
) -> None:
    """The gradient is exactly 0 beyond the bound in the direction of the advantage, and w r A elsewhere."""
    old = tensor(-2.0)
    lp, options = old + step, {"old": old}
    loss = policy_loss(lp, old, tensor(advantage), tensor(1.0), **DAPO, **options)
    expected = 0.0 if clipped else -math.exp(step) * advantage
    assert loss.clipped.tolist() == [clipped]
    assert gradient(lp, old, tensor(advantage), tensor(1.0), **options).tolist() == pytest.approx([expected])


def test_kl_term_pulls_towards_the_reference() -> None:
    """k3 is 0 at the reference, positive elsewhere, and its gradient is kl w (1 - exp(ref - lp))."""
    lp, ref = tensor(-1.0, -2.0, -2.0), tensor(-1.0, -1.0, -3.0)
    assert k3(lp, ref).tolist() == pytest.approx([0.0, math.e - 2, math.exp(-1)])
    zero, weights = tensor(0, 0, 0), tensor(1, 1, 1)
    pull = gradient(lp, lp, zero, weights, reference=ref, kl=0.5)
    assert pull.tolist() == pytest.approx([0.0, 0.5 * (1 - math.e), 0.5 * (1 - math.exp(-1))])


def test_token_of_weight_zero_has_no_gradient_whatever_its_numbers() -> None:
    """Not a number times zero must not reach the weights."""
    bad = tensor(float("nan"), 0.3)
    grad = gradient(tensor(-1.0, -1.0), bad, bad, tensor(0.0, 1.0), old=bad, reference=bad, kl=0.1)
    assert grad[0].item() == 0.0
    assert torch.isfinite(grad).all()
