"""Weights by the names that they have in a model's files, which are the names that vLLM expects.

A model in memory may use other names: transformers, for example, joins the experts of a mixture into one tensor and
splits it again when saving. vLLM silently ignores names of experts that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

#: Model types whose class in vLLM has no head: it computes logits with the embedding, and files contain no head.
_WITHOUT_HEAD = {"gemma2"}


def with_saved_names(
    model: Any, weights: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor with the name that it has in files. Tensors whose name does not change are not copied."""
    config = model.config.get_text_config()
    skipped = "lm_head.weight" if config.model_type in _WITHOUT_HEAD and config.tie_word_embeddings else ""
    nothing: dict[str, Tensor] = {}
    same = revert_weight_conversion(model, nothing) is nothing
    for name, tensor in weights.items() if isinstance(weights, Mapping) else weights:
        if name != skipped:
            yield from ((name, tensor),) if same else revert_weight_conversion(model, {name: tensor}).items()
