"""In which number format matrices are multiplied: bfloat16 if the device is made for it, otherwise float32.

Weights, sums, norms and attention are float32 in any case.
"""

from __future__ import annotations

from typing import Any

import torch

from lightning_embedded.engine.llama import Llama
from lightning_embedded.threads import small

#: Questions to PyTorch, by their names there; a release that lacks one uses no such instructions.
_BFLOAT16_INSTRUCTIONS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 about twice as fast as float32: AMX, or AVX-512 with its BF16 extension."""
    return _has_onednn() and any(getattr(torch.cpu, name, lambda: False)() for name in _BFLOAT16_INSTRUCTIONS)


def product_dtype(model: Any) -> torch.dtype:
    """The format of the factors when a learner computes this model.

    On a CPU it is the engine's, so that a token has the log-prob that it was sampled with.
    """
    if next(model.parameters()).device.type != "cpu":
        return torch.bfloat16
    return packed_dtype(model) or torch.float32


def packed_dtype(model: Any) -> torch.dtype | None:
    """The format of the weights that the engine packs for oneDNN; None if it leaves products to PyTorch."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not on_cpu or not _has_onednn() or small(sum(each.numel() for each in model.parameters())):
        return None
    if not Llama.fits(model):
        return None
    return torch.bfloat16 if has_bfloat16() else torch.float32


def _has_onednn() -> bool:
    """Whether PyTorch was built with oneDNN, as it is for Linux and Windows."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
