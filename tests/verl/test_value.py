"""The loss of the value head equals VERL's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from lightning_embedded.learning.value_head import value_loss
from lightning_sdk.settings import Settings
from tests.verl.batches import assert_same, random_batch

Theirs = Callable[..., tuple[Tensor, Tensor]]


@pytest.mark.same("core_algos.compute_value_loss", "value.clip=0.2")
def test_clipped(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Half the larger error, of the estimate and of the one near the old; both are taken."""
    batch = random_batch(seed)
    values, old, returns = batch.logprobs, batch.old, batch.advantages
    own = value_loss(
        values[batch.kept_mask], returns[batch.kept_mask], old[batch.kept_mask], settings.value.clip
    ).mean()
    loss, clipped = theirs(values, returns, old, batch.mask, settings.value.clip)
    assert_same(own, loss, values)
    assert 0.05 < float(clipped) < 0.95


@pytest.mark.same("core_algos.compute_value_loss", "value.clip=0.0")
def test_free(theirs: Theirs, settings: Settings, seed: int) -> None:
    """0 means no bound, for which VERL has to be given a large one."""
    batch = random_batch(seed)
    values, old, returns = batch.logprobs, batch.old, batch.advantages
    own = value_loss(
        values[batch.kept_mask], returns[batch.kept_mask], old[batch.kept_mask], settings.value.clip
    ).mean()
    loss, clipped = theirs(values, returns, old, batch.mask, 1e30)
    assert_same(own, loss, values)
    assert not float(clipped)
