"""Importance weights between sampler and trainer equal those of VERL's rollout correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla as vanilla

from lightning_losses.ratio import importance, sequence_sum
from lightning_sdk.settings import Settings
from tests.verl.batches import CLOSE, actor, assert_same, ours, random_batch, token_mean

Theirs = Callable[..., Any]
HELPER = "rollout_corr_helper.compute_rollout_correction_weights"


def weights(settings: Settings, log_ratio: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[M] ours at the tokens that count: weights, and where they were out of bounds."""
    kept, rules = mask.bool(), settings.importance
    gap = log_ratio[kept]
    if rules.level == "sequence":
        gap = sequence_sum(gap, kept.nonzero()[:, 0])
    found = importance(gap, kind=rules.kind, low=rules.low, high=rules.high)
    return found.weights, found.outside


def threshold(settings: Settings) -> float | str:
    """As VERL is told: one number truncates, two of them mask."""
    rules = settings.importance
    return rules.high if rules.kind == "truncate" else f"{rules.low}_{rules.high}"


@pytest.mark.same(HELPER, "importance.kind=truncate importance.level=token importance.high=2.0")
def test_truncated_by_token(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's rollout_is=token with one threshold."""
    compare(theirs, settings, seed)


@pytest.mark.same(HELPER, "importance.kind=truncate importance.level=sequence importance.high=2.0")
def test_truncated_by_sequence(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's rollout_is=sequence: the product over the sequence."""
    compare(theirs, settings, seed)


@pytest.mark.same(HELPER, "importance.kind=mask importance.level=token importance.low=0.5 importance.high=2.0")
def test_masked_by_token(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's IcePop: a threshold of "0.5_2.0"."""
    compare(theirs, settings, seed)


@pytest.mark.same(HELPER, "importance.kind=mask importance.level=sequence importance.low=0.5 importance.high=2.0")
def test_masked_by_sequence(theirs: Theirs, settings: Settings, seed: int) -> None:
    """The same of the product."""
    compare(theirs, settings, seed)


def compare(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Weights, shares out of bounds, and the whole loss with its gradient."""
    batch = random_batch(seed)
    log_ratio = batch.old - batch.sampler + 3 * (batch.advantages > 1.5) - 3 * (batch.advantages < -1.5)
    batch.sampler.copy_(batch.old - log_ratio)
    own, outside = weights(settings, log_ratio, batch.mask)
    other, metrics = theirs(log_ratio, batch.mask, settings.importance.level, threshold(settings))
    torch.testing.assert_close(own, other[batch.kept_mask], **CLOSE)
    assert 0 < float(outside.double().mean()) < 1
    assert bool((own < 0.5).any()) and bool(((own > 0.5) & (own < 2)).any())
    if settings.importance.kind == "mask":
        assert float(outside.double().mean()) == pytest.approx(metrics["rollout_is_oob_ratio"], rel=1e-6)
    config = actor(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=1e30)
    loss, _ = vanilla(batch.old, batch.logprobs, batch.advantages, batch.mask, "token-mean", config, other)
    assert_same(ours(settings, batch, token_mean(batch)).loss, loss, batch.logprobs)


@pytest.mark.differs(HELPER, "importance.kind=mask")
def test_what_is_not_a_number(theirs: Theirs, settings: Settings) -> None:
    """VERL masks a ratio that is not a number and goes on. Ours stays NaN, and the learner skips the step and reports
    it."""
    log_ratio = torch.tensor([[0.1, float("nan"), 3.0]], dtype=torch.float64)
    mask = torch.ones_like(log_ratio)
    own, _ = weights(settings, log_ratio, mask)
    other, _ = theirs(log_ratio, mask, "token", threshold(settings))
    assert own.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(other[0], own.nan_to_num(0.0), **CLOSE)


@pytest.mark.differs("rollout_corr_helper.compute_rollout_rejection_mask", "importance.kind=mask")
def test_rejection_is_another_thing(theirs: Theirs, settings: Settings, seed: int) -> None:
    """VERL's rejection by token_k1 leaves out the same tokens as our mask, but does not weight the tokens that it
    keeps."""
    batch = random_batch(seed)
    log_ratio = batch.old - batch.sampler
    own, outside = weights(settings, log_ratio, batch.mask)
    kept, _ = theirs(log_ratio, batch.mask, "token_k1", threshold(settings))
    torch.testing.assert_close(kept[batch.kept_mask], (~outside).double())
    assert bool(outside.any()) and not torch.allclose(own[~outside], torch.ones_like(own[~outside]))
