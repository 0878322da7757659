"""Makes tiny models, and rows such as the hub sends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lightning_hub.backend import Row

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
VOCABULARY = 260
#: A rate that moves a tiny model within a few steps.
SETTINGS = {"optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 0, "optimizer.decay": 0.0}


def tiny_model(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """2 layers, 4 heads over 2 key-value heads, tied head."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "eos_token_id": 257,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))


def save_tiny(folder: Path) -> None:
    tiny_model().save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: index for index, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|start|>", "<|end|>", "<|pad|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)


def weights(model: PreTrainedModel) -> Tensor:
    """All parameters as one vector, copied."""
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def make_row(tokens: Sequence[int], sampled: Sequence[int], advantage: float, weight: float, **changes: Any) -> Row:
    """A row whose tokens at the places `sampled` count."""
    size = len(tokens)
    weights, advantages, logprobs = (np.zeros(size, np.float32) for _ in range(3))
    places = list(sampled)
    weights[places], advantages[places] = weight, advantage
    logprobs[places] = -5.0 - 0.1 * np.sin(places)
    fields: dict[str, Any] = {"temperature": 1.0, "version": 0, "role": "solver", "rollout": "r", **changes}
    return Row(tokens=np.array(tokens, np.int32), weights=weights, advantages=advantages, logprobs=logprobs, **fields)


def make_group_rows(groups: int = 3, size: int = 4, seed: int = 0, temperatures: Sequence[float] = (1.0,)) -> list[Row]:
    """Groups with common prompts, a tool reply inside each row, and every fourth row a copy of the one before."""
    draw, rows = np.random.default_rng(seed), []
    for group in range(groups):
        prompt = draw.integers(0, VOCABULARY, 6 + 3 * group).tolist()
        answer: list[int] = []
        for member in range(size):
            if member % 4 != 3:
                answer = draw.integers(0, VOCABULARY, int(draw.integers(6, 14))).tolist()
            own = range(len(prompt), len(prompt) + len(answer))
            sampled = [place for place in own if place - len(prompt) not in (3, 4)]
            heat = temperatures[member % len(temperatures)]
            rows.append(make_row(prompt + answer, sampled, float(draw.normal()), 0.01, temperature=heat))
    return rows
