"""Weights by the names that a model's files have, which is how vLLM takes them.

A model in memory may have others: transformers joins the experts of a mixture into one tensor, for example, and takes
it apart again when it saves. vLLM leaves out without a word what it does not know of a mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

#: Kinds of which vLLM's class has no head: its logits are of the embedding, and files have no other.
_WITHOUT_HEAD = {"gemma2"}


def saved(model: Any, weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of each, one after another; what has the same name in both is the same tensor."""
    config = model.config.get_text_config()
    skipped = "lm_head.weight" if config.model_type in _WITHOUT_HEAD and config.tie_word_embeddings else ""
    nothing: dict[str, Tensor] = {}
    same = revert_weight_conversion(model, nothing) is nothing
    for name, tensor in weights.items() if isinstance(weights, Mapping) else weights:
        if name != skipped:
            yield from ((name, tensor),) if same else revert_weight_conversion(model, {name: tensor}).items()
