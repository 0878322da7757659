"""The Llama family without the overhead of modules: the same weights in joined matrices, a quarter of the operations.

Equal to the Hugging Face module up to rounding. It exists because a small model that serves few sequences on a CPU
spends more time between its matrix products than in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from lightning_embedded.engine.linear import Linear
from lightning_embedded.engine.slots import Slots
from lightning_embedded.engine.visible_keys import VisibleKeys

#: Model types whose layers are exactly this: RMSNorm, rotary attention, RMSNorm, SiLU-gated MLP.
FAMILY = frozenset({"llama", "mistral", "qwen2"})
_FIXED_ROPE = frozenset({"default", "linear", "llama3"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    before: Tensor
    after: Tensor


class Llama:
    """Computes a Llama-like causal LM in place of its `forward`, with the module's own weights."""

    def __init__(self, model: Any, limit: int, windows: list[int | None], packed: torch.dtype | None) -> None:
        """`packed`: as of `Linear`."""
        config = model.config
        self._heads: int = config.num_attention_heads
        self._groups: int = config.num_key_value_heads
        self._size: int = model.model.layers[0].self_attn.head_dim
        self._scale: float = model.model.layers[0].self_attn.scaling
        self._eps: float = config.rms_norm_eps
        self._model = model
        self._windows = windows
        self._layers = [_join(layer, packed) for layer in model.model.layers]
        self._head = Linear(model.lm_head.weight, model.lm_head.bias, packed)
        parameter = model.model.embed_tokens.weight
        places = torch.arange(limit, device=parameter.device)[None]
        cos, sin = model.model.rotary_emb(parameter[:1], places)
        half = self._size // 2
        # rotate_half(x) * sin = swap(x) * (-sin of the first half, sin of the second)
        self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether this model belongs to the family, without peculiarities."""
        config = model.config
        rope = getattr(config, "rope_parameters", None) or {}
        return (
            config.model_type in FAMILY
            and type(model).__name__.endswith("ForCausalLM")
            and getattr(config, "hidden_act", "silu") == "silu"
            and rope.get("rope_type", "default") in _FIXED_ROPE
            and all(type(layer.self_attn.q_proj) is nn.Linear for layer in model.model.layers)
        )

    def __call__(
        self, ids: Tensor, places: Tensor, seen: VisibleKeys, slots: Slots, last: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Logits [n, vocabulary] at `last` for ids [n, width] at positions `places`, which see the keys in `seen`."""
        n, width = ids.shape
        hidden = F.embedding(ids, self._model.model.embed_tokens.weight)
        cos, sin = self._cos[places][:, :, None], self._sin[places][:, :, None]
        masks = {window: self._shape_mask(seen.mask(window), n, width) for window in set(self._windows)}
        for index, layer in enumerate(self._layers):
            mixed = self._attend(
                index, layer, self._norm(hidden, layer.before), cos, sin, masks[self._windows[index]], slots
            )
            hidden = hidden + layer.out(mixed)
            gate, up = layer.gate_up(self._norm(hidden, layer.after)).chunk(2, -1)
            hidden = hidden + layer.down(F.silu(gate).mul_(up))
        return self._head(self._norm(hidden[last], self._model.model.norm.weight))

    def refresh(self) -> None:
        """The module's weights have changed."""
        for layer in self._layers:
            for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
                linear.refresh()
        self._head.refresh()

    def _shape_mask(self, mask: Tensor, n: int, width: int) -> Tensor:
        """The mask in the shape for products with one query per row."""
        share = self._heads // self._groups
        return mask if width > 1 else mask.expand(n, self._groups, share, -1).reshape(n * self._groups, share, -1)

    def _attend(
        self, index: int, layer: _Layer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, slots: Slots
    ) -> Tensor:
        n, width, _ = x.shape
        heads, groups, size = self._heads, self._groups, self._size
        qkv = layer.qkv(x).to(x.dtype).view(n, width, heads + 2 * groups, size)
        turned = qkv[:, :, : heads + groups]
        first, second = turned.chunk(2, -1)
        turned = torch.addcmul(turned * cos, torch.cat([second, first], -1), sin)
        query, new_keys = turned[:, :, :heads].transpose(1, 2), turned[:, :, heads:].transpose(1, 2)
        keys, values = slots.update(new_keys, qkv[:, :, heads + groups :].transpose(1, 2), index)
        if width == 1:
            flat = query.reshape(n * groups, heads // groups, size)
            scores = torch.baddbmm(mask, flat, keys.flatten(0, 1).transpose(1, 2), alpha=self._scale)
            return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(n, 1, heads * size)
        keys, values = (each.repeat_interleave(heads // groups, 1) for each in (keys, values))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=self._scale)
        return mixed.transpose(1, 2).reshape(n, width, heads * size)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm (arXiv:1910.07467, eq. 4) in float32."""
        if x.dtype != torch.float32:
            return F.rms_norm(x.float(), (x.shape[-1],), None, self._eps).to(x.dtype) * weight
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse: Tensor = square.mul_(1 / x.shape[-1]).add_(self._eps).rsqrt_()
        return (x * inverse).mul_(weight)


def _join(layer: Any, packed: torch.dtype | None) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        qkv=_stack([attention.q_proj, attention.k_proj, attention.v_proj], packed),
        out=Linear(attention.o_proj.weight, attention.o_proj.bias, packed),
        gate_up=_stack([mlp.gate_proj, mlp.up_proj], packed),
        down=Linear(mlp.down_proj.weight, mlp.down_proj.bias, packed),
        before=layer.input_layernorm.weight,
        after=layer.post_attention_layernorm.weight,
    )


def _stack(parts: list[nn.Linear], packed: torch.dtype | None) -> Linear:
    """Join several matrices. The parts become views of it, so weights loaded into the module are loaded here too."""
    weight = torch.cat([part.weight.data for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias.data for part in parts])
    at = 0
    for part in parts:
        end = at + part.out_features
        part.weight.data = weight[at:end]
        if bias is not None:
            part.bias.data = bias[at:end]
        at = end
    return Linear(weight, bias, packed)
