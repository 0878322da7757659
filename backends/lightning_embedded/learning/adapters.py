"""Low-rank adapters: the only thing that a learner with `lora.rank` trains (arXiv:2106.09685).

The model's weights are always the merged ones, W + scale * B A. So the learner computes exactly what the engine serves,
in whatever number format, and a checkpoint holds a model that needs no adapter. The gradients of A and B are products
with x and the output's gradient; that of W, which has as many numbers as the model, is never computed.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Lora

_ALL = "all-linear"


class Adapters:
    """One adapter for each linear layer that `lora.targets` names."""

    def __init__(self, model: PreTrainedModel, lora: Lora) -> None:
        """Freezes the model, and makes its layers compute with their adapters. SettingError for unknown targets."""
        model.requires_grad_(False)
        self._adapters = {
            name: _Adapter(layer, lora.rank, lora.alpha / lora.rank) for name, layer in _find(model, lora.targets)
        }

    def parameters(self) -> list[nn.Parameter]:
        return [each for adapter in self._adapters.values() for each in (adapter.a, adapter.b)]

    def merge(self) -> None:
        """Put the adapters as they are now into the model's weights."""
        for adapter in self._adapters.values():
            adapter.merge()

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs."""
        named = self._adapters.items()
        return {f"{name}.{part}": getattr(adapter, part).detach() for name, adapter in named for part in ("a", "b")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue with these adapters, on the weights that the model had when this object was created."""
        with torch.no_grad():
            for name, adapter in self._adapters.items():
                adapter.a.copy_(state[f"{name}.a"])
                adapter.b.copy_(state[f"{name}.b"])
        self.merge()

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether `restore` can use this state."""
        return {name: each.shape for name, each in self.state().items()} == {
            name: each.shape for name, each in state.items()
        }


class _Adapter:
    """The adapter of one layer: A [rank, in], drawn at random, and B [out, rank], which begins as zeros."""

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        self._layer, self._scale = layer, scale
        self._frozen = layer.weight.detach().clone()
        self._cast: Tensor | None = None
        self.a = nn.Parameter(torch.empty(rank, layer.in_features, device=layer.weight.device))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        layer.forward = types.MethodType(lambda _, x: self._forward(x), layer)  # type: ignore[method-assign]

    def merge(self) -> None:
        with torch.no_grad():
            self._layer.weight.copy_(torch.addmm(self._frozen, self.b, self.a, alpha=self._scale))
        self._cast = None

    def _forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        with torch.autocast(kind, enabled=False):
            product: Tensor = _MergedProduct.apply(x.to(dtype), self._weight(dtype), self.a, self.b, self._scale)  # type: ignore[no-untyped-call]
            return product if self._layer.bias is None else product + self._layer.bias.to(dtype)

    def _weight(self, dtype: torch.dtype) -> Tensor:
        """The merged weight; converted once for all micro-batches between two merges."""
        if self._layer.weight.dtype == dtype:
            return self._layer.weight
        if self._cast is None or self._cast.dtype != dtype:
            self._cast = self._layer.weight.detach().to(dtype)
        return self._cast


class _MergedProduct(torch.autograd.Function):
    """x (W + scale B A)^T with the merged weight given; the gradient goes to x, A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return F.linear(x, merged)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        x, merged, a, b = ctx.saved_tensors
        of_x = grad @ merged if ctx.needs_input_grad[0] else None
        rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        of_a = (rows @ low_b).T @ inputs
        of_b = rows.T @ (inputs @ low_a.T)
        return of_x, None, of_a.to(a.dtype) * ctx.scale, of_b.to(b.dtype) * ctx.scale, None


def _find(model: PreTrainedModel, targets: str) -> list[tuple[str, nn.Linear]]:
    """The layers that `targets` names: by the last part of their names, or all but the one that computes logits."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) is nn.Linear and layer is not head]
    if targets.strip() == _ALL:
        return layers
    asked = {each.strip() for each in targets.split(",") if each.strip()}
    known = {name.rpartition(".")[2] for name, _ in layers}
    if unknown := sorted(asked - known):
        raise SettingError(
            f"setting lora.targets={targets!r}: this model has no linear layer named {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}, or say '{_ALL}'"
        )
    return [(name, layer) for name, layer in layers if name.rpartition(".")[2] in asked]
