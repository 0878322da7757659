"""The weights of our rows' tokens add up to what VERL's `agg_loss` makes of a loss, in all four ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_hub.credit.batch import build_batch
from lightning_sdk.settings import Settings
from tests.trajectories.conversations import call, rollout
from tests.verl.responses import PROMPT, Responses, responses

Theirs = Callable[..., Tensor]
#: Weights are float32.
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-9}


def weights(made: Responses, settings: Settings) -> Tensor:
    """[B, L] ours."""
    return made.pad(build_batch(made.rollouts, settings).rows, "weights")


def assert_same(made: Responses, own: Tensor, theirs: Theirs, mode: str, **options: Any) -> None:
    """Value and gradient, of a loss of each token."""
    loss = torch.linspace(1, 3, made.mask.numel(), dtype=torch.float64).view_as(made.mask).requires_grad_()
    mine, other = (own * loss).sum(), theirs(loss, made.mask, mode, **options)
    torch.testing.assert_close(mine, other, **CLOSE)
    (gradient,) = torch.autograd.grad(other, loss)
    torch.testing.assert_close(own, gradient, **CLOSE)


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=token-mean")
def test_token_mean(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Every token of the batch alike."""
    made = responses(seed)
    assert_same(made, weights(made, settings), theirs, "token-mean")


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-mean")
def test_seq_mean_token_mean(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Every sequence alike."""
    made = responses(seed)
    assert_same(made, weights(made, settings), theirs, "seq-mean-token-mean")


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-sum")
def test_seq_mean_token_sum(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Sums over sequences, mean of those."""
    made = responses(seed)
    assert_same(made, weights(made, settings), theirs, "seq-mean-token-sum")


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-sum-norm sampling.max_tokens=200")
def test_seq_mean_token_sum_norm(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Divided by a constant, which VERL calls loss_scale_factor."""
    made = responses(seed)
    assert_same(made, weights(made, settings), theirs, "seq-mean-token-sum-norm", loss_scale_factor=200)


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-mean length.truncated=mask")
def test_sequences_without_tokens_count(theirs: Theirs, settings: Settings, seed: int) -> None:
    """A rollout of which nothing is trained is still one of the N, as with the global_batch_size of VERL's trainer."""
    made, cut = with_truncated(seed)
    assert_same(cut, weights(made, settings), theirs, "seq-mean-token-mean", global_batch_size=len(made.rollouts))


@pytest.mark.differs("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-mean length.truncated=mask")
def test_sequences_without_tokens_left_out(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Without a global_batch_size VERL divides by the number of sequences that remain, so leaving some out gives the
    others more weight."""
    made, cut = with_truncated(seed)
    count = len(made.rollouts)
    assert_same(cut, weights(made, settings) * count / (count - 2), theirs, "seq-mean-token-mean")


@pytest.mark.differs("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-sum-norm sampling.max_tokens=200")
def test_the_norm_is_not_a_width(theirs: Theirs, settings: Settings, seed: int) -> None:
    """Unless a factor is given, VERL divides by the width of the padded batch, which depends on the longest sample."""
    made = responses(seed)
    assert_same(made, weights(made, settings) * 200 / made.mask.shape[1], theirs, "seq-mean-token-sum-norm")


def rewritten() -> tuple[list[Any], Tensor]:
    """A rollout of two rows of 3 tokens and 1, and one of a row of 2, as VERL's mask of three sequences."""
    twice = rollout(1, call(1, PROMPT, ([4, 5, 6], [-1.0] * 3)), call(11, [9, 9], ([7], [-1.0])), rewards={"": 1.0})
    once = rollout(2, call(1, PROMPT, ([8, 8], [-1.0] * 2)), rewards={"": 0.0})
    return [twice, once], torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.float64)


@pytest.mark.same("core_algos.agg_loss", "algorithm.aggregation=token-mean")
def test_rows_and_token_mean(theirs: Theirs, settings: Settings) -> None:
    """How many rows a rollout has does not matter to the mean over tokens, to either."""
    rollouts, mask = rewritten()
    own = [float(row.weights.max()) for row in build_batch(rollouts, settings).rows]
    assert own == pytest.approx(of_rows(theirs, mask, "token-mean"))
    assert own == pytest.approx([1 / 6] * 3)


@pytest.mark.differs("core_algos.agg_loss", "algorithm.aggregation=seq-mean-token-mean")
def test_rows_are_not_sequences(theirs: Theirs, settings: Settings) -> None:
    """VERL treats each row as a sequence, so a rollout in two rows weighs as much as two rollouts. Ours treats a
    rollout as one sequence."""
    rollouts, mask = rewritten()
    own = [float(row.weights.max()) for row in build_batch(rollouts, settings).rows]
    assert own == pytest.approx([1 / 2 / 4, 1 / 2 / 4, 1 / 2 / 2])
    assert of_rows(theirs, mask, "seq-mean-token-mean") == pytest.approx([1 / 3 / 3, 1 / 3, 1 / 3 / 2])


def of_rows(theirs: Theirs, mask: Tensor, mode: str) -> list[float]:
    """The weight that VERL gives to a token of each row."""
    loss = torch.zeros_like(mask).requires_grad_()
    (found,) = torch.autograd.grad(theirs(loss, mask, mode), loss)
    return [float(row.max()) for row in found]


def with_truncated(seed: int) -> tuple[Responses, Responses]:
    """Rollouts of one call, of which two ended at the token limit; and the same with VERL's mask cleared there."""
    made = responses(seed, calls=1)
    for place in (1, 4):
        whole = made.rollouts[place]
        calls = [
            replace(each, choices=tuple(replace(c, finish_reason="length") for c in each.choices))
            for each in whole.calls
        ]
        made.rollouts[place] = replace(whole, calls=tuple(calls))
    mask = made.mask.clone()
    mask[[1, 4]] = 0.0
    return made, replace(made, mask=mask)
