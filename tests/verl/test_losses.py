"""Policy losses equal VERL's, value and gradient, with every branch of the clipping taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sdk.settings import Settings
from tests.verl.batches import CLOSE, Padded, actor, assert_same, gradient, ours, random_batch, token_mean

Theirs = Callable[..., Any]
#: No bound: dual clipping cannot be turned off in VERL, only put out of reach.
NONE = 1e30


def call(theirs: Theirs, batch: Padded, **options: Any) -> tuple[Tensor, dict[str, float]]:
    """VERL's loss, and what it says of it."""
    loss, metrics = theirs(batch.old, batch.logprobs, batch.advantages, batch.mask, "token-mean", actor(**options))
    return loss, metrics


def without_correction(settings: Settings) -> Settings:
    """Without importance weights, which have separate tests."""
    return Settings.from_dict({**settings.flat(), "importance.kind": "off"})


def clips(settings: Settings) -> dict[str, float]:
    """The names that VERL has for our bounds."""
    algorithm = settings.algorithm
    return {
        "clip_ratio_low": algorithm.clip_low,
        "clip_ratio_high": algorithm.clip_high,
        "clip_ratio_c": algorithm.clip_dual or NONE,
    }


def share(where: Tensor, batch: Padded) -> float:
    """The share of the tokens that count; 0 would leave a branch untested."""
    found = float(where[batch.kept_mask].double().mean())
    assert found > 0
    return found


@pytest.mark.same(
    "core_algos.compute_policy_loss_vanilla", "algorithm.loss=ppo algorithm.clip_low=0.2 algorithm.clip_high=0.28"
)
def test_ppo(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Clipped above where the advantage is positive and below where it is negative; ratios of e^20 and more as well."""
    batch = random_batch(seed)
    own = ours(without_correction(settings), batch, token_mean(batch))
    loss, metrics = call(theirs, batch, **clips(settings))
    assert_same(own.loss, loss, batch.logprobs)
    up, down = batch.advantages > 0, batch.advantages < 0
    taken = share(up & (batch.ratio > 1.28), batch) + share(down & (batch.ratio < 0.8), batch)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(taken, rel=1e-6)
    assert float(own.clipped.double().mean()) == pytest.approx(taken, rel=1e-6)
    for free in (up & (batch.ratio < 0.8), down & (batch.ratio > 1.28), batch.advantages == 0, batch.ratio > 5e8):
        share(free, batch)


@pytest.mark.same("core_algos.compute_policy_loss_vanilla", "algorithm.loss=ppo algorithm.clip_dual=3.0")
def test_dual_clip(theirs: Theirs, settings: Settings, seed: int) -> None:
    """`clip_dual` is VERL's clip_ratio_c: the third branch, whose share VERL tells apart and we count in."""
    batch = random_batch(seed)
    own = ours(without_correction(settings), batch, token_mean(batch))
    loss, metrics = call(theirs, batch, **clips(settings))
    assert_same(own.loss, loss, batch.logprobs)
    punished = share((batch.advantages < 0) & (batch.ratio > 3), batch)
    assert metrics["actor/pg_clipfrac_lower"] == pytest.approx(punished, rel=1e-6)
    both = metrics["actor/pg_clipfrac"] + metrics["actor/pg_clipfrac_lower"]
    assert float(own.clipped.double().mean()) == pytest.approx(both, rel=1e-6)


@pytest.mark.same("core_algos.compute_policy_loss_gspo", "algorithm.loss=gspo")
@pytest.mark.parametrize("bounds", [(0.2, 0.28), (3e-4, 4e-4)])
def test_gspo(theirs: Theirs, settings: Settings, seed: int, bounds: tuple[float, float]) -> None:
    """One ratio for each sequence, the geometric mean of its tokens'; with bounds of every size, GSPO's among them."""
    low, high = bounds
    settings = Settings.from_dict({**settings.flat(), "algorithm.clip_low": low, "algorithm.clip_high": high})
    batch = random_batch(seed)
    own = ours(without_correction(settings), batch, token_mean(batch))
    loss, metrics = call(theirs, batch, **clips(settings))
    assert_same(own.loss, loss, batch.logprobs)
    log_ratio = ((batch.logprobs - batch.old).detach() * batch.mask).sum(1, True) / batch.mask.sum(1, True)
    ratio = log_ratio.exp().expand_as(batch.mask)
    up, down = batch.advantages > 0, batch.advantages < 0
    taken = share(up & (ratio > 1 + high), batch) + share(down & (ratio < 1 - low), batch)
    share(up & (ratio <= 1 + high), batch), share(down & (ratio >= 1 - low), batch)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(taken, rel=1e-6)
    assert float(own.clipped.double().mean()) == pytest.approx(taken, rel=1e-6)


@pytest.mark.differs("core_algos.compute_policy_loss_gspo", "algorithm.loss=gspo algorithm.clip_dual=3.0")
def test_gspo_with_dual_clip(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's GSPO has no dual clip. Ours, with one, differs only where a bad sequence has become more likely than its
    bound."""
    batch = random_batch(seed)
    batch.old[::3] = batch.logprobs.detach()[::3] - 2
    batch.advantages[::3] = -1.0
    own = ours(without_correction(settings), batch, token_mean(batch))
    loss, _ = call(theirs, batch, **clips(settings))
    log_ratio = ((batch.logprobs - batch.old).detach() * batch.mask).sum(1, True) / batch.mask.sum(1, True)
    bounded = batch.kept_mask & (batch.advantages < 0) & (log_ratio.exp() > 3)
    assert bounded.any()
    (mine,), (other,) = gradient(own.loss, batch.logprobs), gradient(loss, batch.logprobs)
    torch.testing.assert_close(mine, torch.where(bounded, 0.0, other), **CLOSE)
    assert bool(other[bounded].all())


@pytest.mark.same("core_algos.compute_policy_loss_cispo", "algorithm.loss=cispo")
def test_cispo(theirs: Theirs, settings: Settings, seed: int) -> None:
    """The ratio is clipped without regard to the advantage's sign, and every token keeps a gradient."""
    batch = random_batch(seed)
    own = ours(without_correction(settings), batch, token_mean(batch))
    loss, metrics = call(theirs, batch, **clips(settings))
    assert_same(own.loss, loss, batch.logprobs)
    taken = share(batch.ratio > 1.28, batch) + share(batch.ratio < 0.8, batch)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(taken, rel=1e-6)
    assert float(own.clipped.double().mean()) == pytest.approx(taken, rel=1e-6)


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=token-mean algorithm.entropy=0.01 algorithm.loss=ppo")
def test_entropy_bonus(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Taken off with the weights that the policy loss has, as VERL's actor does it."""
    batch = random_batch(seed)
    entropy = batch.reference.abs().requires_grad_()
    plain = Settings.from_dict({**settings.flat(), "algorithm.entropy": 0.0})
    bonus = ours(settings, batch, token_mean(batch), entropy).loss - ours(plain, batch, token_mean(batch)).loss
    assert_same(bonus, -0.01 * theirs(entropy, batch.mask, "token-mean"), entropy)
