"""Estimates of the divergence from the reference equal VERL's, as a part of the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_losses.divergence import divergence
from lightning_sdk.settings import Settings
from tests.verl.batches import CLOSE, assert_same, gradient, random_batch

Theirs = Callable[..., Tensor]


def compare(theirs: Theirs, settings: Settings, seed: int, *names: str) -> None:
    """Ours and VERL's under each of its names, each token with another weight."""
    batch = random_batch(seed)
    weights = torch.linspace(1, 2, batch.mask.numel(), dtype=torch.float64).view_as(batch.mask) * batch.mask
    for name in names:
        mine = (weights * divergence(batch.logprobs, batch.reference, settings.divergence.estimator)).sum()
        assert_same(mine, (weights * theirs(batch.logprobs, batch.reference, name)).sum(), batch.logprobs)
    far = (batch.reference - batch.logprobs).detach()[batch.kept_mask]
    assert all(bool(where.any()) for where in (far > 20, far < -20, far.abs() < 1))


@pytest.mark.same("core_algos.kl_penalty_forward", "divergence.estimator=k1")
def test_k1(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's kl."""
    compare(theirs, settings, seed, "kl", "k1")


@pytest.mark.same("core_algos.kl_penalty_forward", "divergence.estimator=k2")
def test_k2(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's mse."""
    compare(theirs, settings, seed, "mse", "k2")


@pytest.mark.same("core_algos.kl_penalty_forward", "divergence.estimator=k3")
def test_k3(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's low_var_kl, with its bounds: no value above 10, and no gradient there."""
    compare(theirs, settings, seed, "low_var_kl", "k3")


@pytest.mark.differs("core_algos.kl_penalty", "divergence.estimator=k2")
def test_straight_through(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's k1+ and k3+ have the values of k1 and k3 and the gradient of k2, which is exactly the gradient of our
    k2."""
    batch = random_batch(seed)
    for name in ("k1", "k3"):
        mine = divergence(batch.logprobs, batch.reference, settings.divergence.estimator)
        plus = theirs(batch.logprobs, batch.reference, name + "+")
        (own,), (other,) = gradient(mine.sum(), batch.logprobs), gradient(plus.sum(), batch.logprobs)
        torch.testing.assert_close(own, other, **CLOSE)
        shown = divergence(batch.logprobs, batch.reference, name)
        torch.testing.assert_close(plus, shown, **CLOSE)
        assert not torch.allclose(plus, mine)
