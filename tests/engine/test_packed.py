"""Weights that are packed for oneDNN: the same tokens and log-probs, and a learner that computes as the engine does."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded import threads
from lightning_embedded.engine import precision
from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.learning.learner import Learner
from lightning_sdk.settings import Settings
from tests.engine.served_engine import assert_logprobs
from tests.engine.test_engine import prompts
from tests.learner.tinymodel import make_row

has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
pytestmark = pytest.mark.skipif(not has_onednn, reason="this PyTorch has no oneDNN")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def factors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Even a tiny model is packed, with factors in this format."""
    if request.param == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN cannot multiply bfloat16 on this CPU")
    monkeypatch.setattr(threads, "_SMALL", 0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: request.param == torch.bfloat16)
    dtype: torch.dtype = request.param
    return dtype


@pytest.fixture
def engine(factors: torch.dtype, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Engine]:
    assert precision.packed_dtype(model) == factors
    engine = Engine(model, tokenizer, max_slots=8)
    yield engine
    engine.close()


def largest_difference(learner: Learner, sequences: list[Sequence]) -> float:
    """Between the log-probs of the sampler and those of the learner."""
    found = 0.0
    for sequence in sequences:
        ids = sequence.all_ids()
        row = make_row(ids, range(len(sequence.prompt), len(ids)), 1.0, 1.0)
        pairs = zip(learner.logprobs(row), sequence.logprobs, strict=True)
        found = max(found, *(abs(learned - sampled) for learned, sampled in pairs))
    return found


def test_the_learner_computes_as_the_engine_does(factors: torch.dtype, engine: Engine, model: LlamaForCausalLM) -> None:
    """Up to the order of sums in float32, and to the few roundings that it turns in bfloat16; also for new weights."""
    limit = 1e-4 if factors == torch.float32 else 0.02
    learner = Learner(copy.deepcopy(model), Settings())
    assert largest_difference(learner, engine.generate(prompts(6), Params(max_tokens=10))) < limit
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.mul_(1.1)
    stale = largest_difference(learner, engine.generate(prompts(6), Params(max_tokens=10)))
    engine.publish(learner.model.state_dict(), 1)
    assert largest_difference(learner, engine.generate(prompts(6), Params(max_tokens=10))) < limit < stale


def test_float32_is_exact(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed or not, log-probs are those of the module."""
    monkeypatch.setattr(threads, "_SMALL", 0)
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    engine = Engine(model, tokenizer, max_slots=8)
    try:
        assert_logprobs(model, engine.generate(prompts(20), Params(max_tokens=10)))
    finally:
        engine.close()


def test_small_models_and_other_architectures_are_left_to_pytorch(model: LlamaForCausalLM) -> None:
    """`spark` is one: packing would cost it more than it gains."""
    assert precision.packed_dtype(model) is None
    assert precision.product_dtype(model) == torch.float32
