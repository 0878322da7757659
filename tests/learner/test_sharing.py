"""The gradient does not depend on how rows are laid out."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lightning_embedded.learning.logprobs import Scorer
from lightning_embedded.learning.micro_batches import trainable
from lightning_hub.backend import Row
from lightning_losses.loss import ppo
from lightning_losses.ratio import importance
from tests.learner.tinymodel import VOCABULARY, make_group_rows, make_row, tiny_model


def by_hand(model: PreTrainedModel, rows: Sequence[Row]) -> float:
    """The loss one row at a time, unpadded, with every logit: nothing of ours but the formula. Leaves gradients."""
    total = 0.0
    for row in rows:
        tokens, at = torch.from_numpy(row.tokens).long(), torch.from_numpy(np.flatnonzero(row.weights))
        logits = model(input_ids=tokens[None], use_cache=False).logits[0] / row.temperature
        logprobs = logits.log_softmax(-1)[at - 1, tokens[at]]
        ratio = (logprobs.detach() - torch.from_numpy(row.logprobs)[at]).exp().clamp(max=2.0)
        surrogate = (logprobs - logprobs.detach()).exp() * torch.from_numpy(row.advantages)[at]
        loss = -(torch.from_numpy(row.weights)[at] * ratio * surrogate).sum()
        loss.backward()
        total += loss.item()
    return total


def by_scorer(scorer: Scorer, rows: Sequence[Row], budget: int) -> float:
    total = 0.0
    for micro in scorer.micro_batches(rows, budget):
        t = micro.targets
        logprobs = scorer.score(micro).logprobs
        old = logprobs.detach()
        weights = t.weights * importance(old - t.sampler, kind="truncate", low=0.5, high=2.0).weights
        loss = (weights * ppo(logprobs, old, t.advantages, clip_low=0.2, clip_high=0.28).loss).sum()
        loss.backward()
        total += loss.item()
    return total


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def assert_same(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Every parameter's gradient to 1e-5 of its norm; where it vanishes, to rounding in the whole gradient."""
    left, right = gradients(model), gradients(other)
    assert left.keys() == right.keys() and left
    rounding = 1e-6 * torch.stack([grad.norm() for grad in left.values()]).norm()
    for name, grad in left.items():
        assert (grad - right[name]).norm() <= 1e-5 * grad.norm() + rounding, name


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("budget", [10_000, 60, 1])
def test_layout_and_budget_change_nothing(share: bool, budget: int) -> None:
    """Shared or padded, in one piece or one row at a time: the loss and every gradient of the plain computation."""
    plain, packed = tiny_model(), tiny_model()
    rows = make_group_rows(temperatures=(1.0, 0.7))
    scorer = Scorer(packed, share=share)
    assert scorer.shares is share
    assert by_scorer(scorer, rows, budget) == pytest.approx(by_hand(plain.eval(), rows), rel=1e-5)
    assert_same(plain, packed)


def test_order_of_rows_changes_no_bit() -> None:
    """Rows are sorted by content, so a shuffled batch gives the identical gradient."""
    rows = make_group_rows()
    shuffled = [rows[index] for index in np.random.default_rng(1).permutation(len(rows))]
    models = []
    for order in (rows, shuffled):
        model = tiny_model()
        by_scorer(Scorer(model), order, 60)
        models.append(model)
    left, right = map(gradients, models)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_common_prefixes_are_computed_once() -> None:
    """Eight rows with one prompt of 30 and two answers of 5: 30 + 2 * 4 positions, since the last token is not read."""
    prompt = list(range(30))
    rows = [make_row([*prompt, *[100 + row % 2] * 5], range(30, 35), 1.0, 0.1) for row in range(8)]
    (micro,) = Scorer(tiny_model()).micro_batches(rows, 10_000)
    assert micro.tokens.shape == (1, 38)
    assert len(micro.targets.tokens) == 40
    assert len(micro.predictors) == 1 + 2 * 4


@budget(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(0, 2**9 - 1)), min_size=1),
    st.integers(1, 40),
)
def test_any_rows_give_the_plain_gradient(drawn: list[tuple[list[int], int]], tokens: int) -> None:
    """Few distinct ids make rows that are copies and prefixes of each other; any of their tokens may count."""
    rows = []
    for ids, bits in drawn:
        sampled = [place for place in range(1, len(ids)) if bits >> place & 1]
        rows.append(make_row(ids, sampled, 0.5 + ids[0], 0.1))
    rows = trainable(rows, skip_zero_advantage=False)
    if not rows:
        return
    plain, packed = tiny_model(num_hidden_layers=1), tiny_model(num_hidden_layers=1)
    assert by_scorer(Scorer(packed), rows, tokens) == pytest.approx(by_hand(plain.eval(), rows), rel=1e-4, abs=1e-6)
    assert_same(plain, packed)


def test_sequences_without_advantage_are_left_out_only_where_that_is_exact() -> None:
    """A sequence of zero advantages has no gradient; a row without a weight never counts."""
    flat, weightless = make_row([1, 2, 3], [1, 2], 0.0, 0.1, rollout="s"), make_row([1, 2, 3], [], 1.0, 0.0)
    signal = make_row([1, 2, 3], [2], 1.0, 0.1)
    assert trainable([flat, weightless, signal], skip_zero_advantage=True) == [signal]
    assert trainable([flat, weightless, signal], skip_zero_advantage=False) == [flat, signal]


def test_a_flat_row_of_a_sequence_with_signal_stays() -> None:
    """It counts for the sequence's ratio; so does a row that the value head learns from."""
    flat, signal = make_row([1, 2, 3], [1], 0.0, 0.1), make_row([1, 2, 3], [2], 1.0, 0.1)
    assert trainable([flat, signal], skip_zero_advantage=True) == [flat, signal]
    assert trainable([flat, replace(signal, role="other")], skip_zero_advantage=True) == [replace(signal, role="other")]
    zeros = np.zeros(3, np.float32)
    assert len(trainable([replace(flat, returns=zeros, values=zeros)], skip_zero_advantage=True)) == 1


SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SHAPE, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        (Qwen3ForCausalLM(Qwen3Config(**LLAMA_LIKE)), True),
        (MistralForCausalLM(MistralConfig(**LLAMA_LIKE, sliding_window=5)), True),
        (GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4)), True),
        (Gemma2ForCausalLM(Gemma2Config(**LLAMA_LIKE, attn_logit_softcapping=0.1)), False),
        (FalconForCausalLM(FalconConfig(**SHAPE, alibi=True)), False),
    ],
    ids=["qwen3", "sliding window", "gpt2", "softcap", "alibi"],
)
def test_other_architectures(model: PreTrainedModel, shares: bool) -> None:
    """Models share prefixes where their attention can be exchanged, and fall back to padded rows where it cannot."""
    model.config._attn_implementation = "eager"
    plain, rows = copy.deepcopy(model).eval(), make_group_rows(groups=2)
    scorer = Scorer(model)
    assert scorer.shares is shares
    assert by_scorer(scorer, rows, 200) == pytest.approx(by_hand(plain, rows), rel=1e-4)
    assert_same(plain, model)
