"""The architectures that users bring, as tiny random models with a small tokenizer and a chat template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.learner.tinymodel import save_tiny

#: The tokenizer has 259 tokens; of a Qwen2 it has 260, since transformers takes a class for it that adds one. Heads of
#: 32 dimensions are the least that vLLM takes on a CPU.
PADDED, WINDOW = 320, 16
_SHAPE: dict[str, Any] = {
    "vocab_size": PADDED,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
_APART: dict[str, Any] = {"tie_word_embeddings": False}
_MIXED: dict[str, Any] = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 32,
}
_MIXTURE: dict[str, Any] = {"num_experts_per_tok": 2} | _APART
SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SHAPE, **_APART),
    "llama tied": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_SHAPE, **_APART),
    "qwen2 tied": lambda: Qwen2Config(**_SHAPE, tie_word_embeddings=True),
    "qwen3 tied": lambda: Qwen3Config(**_SHAPE, tie_word_embeddings=True),
    "gemma3": lambda: Gemma3TextConfig(**_SHAPE | _MIXED),
    "mistral": lambda: MistralConfig(**_SHAPE, **_APART, sliding_window=WINDOW),
    "phi3": lambda: Phi3Config(**_SHAPE, **_APART, sliding_window=WINDOW),
    "qwen3 moe": lambda: Qwen3MoeConfig(**_SHAPE, **_MIXTURE, num_experts=4, moe_intermediate_size=32),
    "olmoe": lambda: OlmoeConfig(**_SHAPE | {"intermediate_size": 32}, **_MIXTURE, num_experts=4),
    "mixtral": lambda: MixtralConfig(**_SHAPE, **_MIXTURE, num_local_experts=4),
}
EXPERTS = ("qwen3 moe", "olmoe", "mixtral")
#: Those whose logits are more than their head's product.
SCALED: dict[str, Callable[[], PreTrainedConfig]] = {
    "gemma2": lambda: Gemma2Config(**_SHAPE | _MIXED),
    "granite": lambda: GraniteConfig(**_SHAPE, logits_scaling=3.0),
}


def make(name: str, folder: Path) -> PreTrainedModel:
    """The model of this name, which is saved in the folder, with a tokenizer."""
    save_tiny(folder)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config((SHAPES | SCALED)[name]()).eval()
    model.save_pretrained(folder)
    return model


def vocabulary_limit(folder: Path) -> int:
    """Ids below it are those that VERL's server lets vLLM draw: it counts the tokenizer's tokens."""
    return len(AutoTokenizer.from_pretrained(folder))
