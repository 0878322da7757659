"""Models with sliding windows: generated and learned beyond the window as transformers itself computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2Config,
)

from lightning_embedded.engine.context import context_limit
from lightning_embedded.engine.engine import Engine, PromptTooLong
from lightning_embedded.engine.sequence import Params
from lightning_embedded.learning.logprobs import Scorer
from lightning_hub.backend import Row
from tests.engine.served_engine import make_tokenizer

WINDOW = 8
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
    "initializer_range": 0.3,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "head_dim": 8}
MODELS = {
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=WINDOW),
    "phi3": lambda: Phi3Config(**SHAPE, sliding_window=WINDOW),
    "qwen2": lambda: Qwen2Config(**SHAPE, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=1),
    "gemma2": lambda: Gemma2Config(**SHAPE, **MIXED, sliding_window=WINDOW, query_pre_attn_scalar=8),
    "gemma3": lambda: Gemma3TextConfig(**SHAPE, **MIXED, sliding_window=WINDOW, query_pre_attn_scalar=8),
}


def tiny(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(MODELS[name]()).eval()
    return model


def prompts() -> list[list[int]]:
    """Shorter and longer than the window, some that begin alike, so that they start from each other's keys."""
    draw = np.random.default_rng(0)
    long = draw.integers(10, 400, 60).tolist()
    return [long[:3], long[:9], long[:40], long, draw.integers(10, 400, 25).tolist()]


def theirs(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """[T, vocabulary] log-probs of transformers' own forward pass over one sequence, without any cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.float().log_softmax(-1)


@pytest.mark.parametrize("name", MODELS)
def test_generated_beyond_the_window(name: str) -> None:
    """Greedy ids and their log-probs are those of one forward pass over the whole sequence."""
    model = tiny(name)
    engine = Engine(model, make_tokenizer(), max_slots=4)
    try:
        assert engine.max_length == 128
        made = engine.generate(prompts(), Params(max_tokens=20, temperature=0.0))
        made += engine.generate([made[2].all_ids()], Params(max_tokens=20, temperature=0.0))  # a second turn
    finally:
        engine.close()
    for each in made:
        expected = theirs(model, each.all_ids())[len(each.prompt) - 1 : -1]
        assert each.token_ids == expected.argmax(-1).tolist()
        np.testing.assert_allclose(each.logprobs, expected.max(-1).values, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_the_window_matters(name: str) -> None:
    """With a wide one these models say something else, so that the tests above tell a window from none."""
    model, other = tiny(name), tiny(name)
    tokens = prompts()[3]
    for layer in other.model.layers:
        layer.self_attn.sliding_window = 128
    other.config.sliding_window = 128
    assert (theirs(model, tokens)[-1] - theirs(other, tokens)[-1]).abs().max() > 0.05


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [True, False])
def test_learned_beyond_the_window(name: str, share: bool) -> None:
    """What the learner says of each sampled token is what transformers says, with common beginnings shared or not."""
    model, rows = tiny(name), []
    long = prompts()[3]
    for number, tokens in enumerate((long[:50], [*long[:30], *long[5:30]], long[:12], long[20:])):
        weights = (np.arange(len(tokens)) >= 5).astype(np.float32)
        rows.append(
            Row(
                tokens=np.array(tokens, np.int32),
                weights=weights,
                advantages=weights,
                logprobs=weights,
                temperature=1.0,
                version=0,
                role="",
                rollout=str(number),
            )
        )
    expected = [theirs(model, row.tokens.tolist()) for row in rows]
    scorer = Scorer(model, share=share)
    assert scorer.shares == (share and name != "gemma2")  # its attention is capped, which a trie does not know
    for micro in scorer.micro_batches(rows, 1 << 20):
        with torch.no_grad():
            found = scorer.score(micro).logprobs
        wanted = torch.cat(
            [
                expected[place][np.arange(4, len(rows[place].tokens) - 1), rows[place].tokens[5:]]
                for place in dict.fromkeys(micro.targets.row.tolist())
            ]
        )
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_what_cannot_be_served_at_full_length_is_bounded_and_named() -> None:
    """Chunks, windows that layers keep to themselves, and rotary embeddings that switch, end the context there."""
    config = MistralConfig(**SHAPE, sliding_window=64)
    assert context_limit(config, [64] * 3) == (128, "")
    assert context_limit(config, [None] * 3) == (64, "its layers hide their window from the engine")
    chunked = LlamaConfig(**SHAPE, attention_chunk_size=32)
    assert context_limit(chunked, [None] * 3) == (32, "its attention is chunked")
    long = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10000.0}
    switching = Phi3Config(**SHAPE, rope_parameters=long, original_max_position_embeddings=16)
    assert context_limit(switching, [None] * 3) == (16, "beyond it, all its rotary embeddings change")


def test_a_context_that_the_cache_cannot_hold_is_cut() -> None:
    """A long context costs the sequences beside it their place: eight of them are kept, and the error says why."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SHAPE, "max_position_embeddings": 4096}))
    per_token = 3 * 2 * 2 * 8 * 4
    engine = Engine(model, make_tokenizer(), max_cache_bytes=per_token * 900)
    try:
        assert (engine.max_length, engine.max_slots) == (100, 8)
        with pytest.raises(
            PromptTooLong, match=r"at most 100, completion included: the engine.s cache has room.* 4096"
        ):
            engine.check([5] * 100)
    finally:
        engine.close()
