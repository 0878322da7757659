"""Finds a model's anatomy without loading any of its weights.

The model's own class is instantiated on torch's `meta` device, where tensors have a shape and no memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lightning_process.anatomy import Anatomy


def dissect(config: Any) -> Anatomy | None:
    """The anatomy of the model that `config` describes; None if its class cannot be instantiated."""
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        head = model.get_output_embeddings()
        layers = _layers(model)
        return Anatomy(
            parameters=sum(each.numel() for each in model.parameters()),
            layers=len(layers),
            layer=max(sum(each.numel() for each in layer.parameters()) for layer in layers),
            head=head.weight.numel(),
            width=head.weight.shape[1],
            vocabulary=head.weight.shape[0],
            plain_head=has_plain_head(model),
            experts=any(".experts." in name for name, _ in model.named_parameters()),
        )
    except Exception:  # the class may run any code; then nothing is known
        return None


def has_plain_head(model: Any) -> bool:
    """Whether this model's logits are exactly what its head returns for exactly what its layers return.

    Found by running the model's own code with layers that do nothing, which needs no understanding of its config.
    """
    head, body = model.get_output_embeddings(), getattr(model, "model", None)
    if type(head) is not nn.Linear or head.bias is not None or head is not getattr(model, "lm_head", None) or not body:
        return False
    given = torch.empty(1, 2, head.weight.shape[1], dtype=head.weight.dtype, device=head.weight.device)
    seen: list[tuple[Tensor, Tensor]] = []
    hook = head.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    body.forward = lambda *_, **__: _Nothing(given)
    try:
        ids = torch.zeros(1, 2, dtype=torch.long, device=given.device)
        logits = model(input_ids=ids, use_cache=False, return_dict=True).logits
    finally:
        del body.forward
        hook.remove()
    (entered, left), *more = seen
    return logits is left and not more and entered.shape == given.shape and (entered is given or entered._base is given)


class _Nothing:
    """The output of layers that do nothing."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, place: int) -> Tensor:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def _layers(model: Any) -> nn.ModuleList:
    """The decoder's layers: the longest list of modules."""
    return max((each for each in model.modules() if isinstance(each, nn.ModuleList)), key=len)
