"""The memory that this learner needs, estimated from the model's anatomy before any weights are loaded.

The whole model is on one device in float32: weights, gradients and AdamW's two moments; with adapters, the weights as
they are and as they were. On a GPU matrices are multiplied in bfloat16, which needs a copy of each while a micro-batch
is computed.
"""

from __future__ import annotations

import logging
import os

import torch

from lightning_process.anatomy import Anatomy
from lightning_process.memory_need import GB, MemoryNeed
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings

log = logging.getLogger(__name__)

#: Bytes for each logit, from the forward pass to its gradient.
_LOGIT_BYTES = 20
#: Parts that are not estimates.
_CERTAIN = ("weights", "weights before adapters", "optimizer", "gradients", "the reference", "the engine")
#: Memory of a process on a GPU before it holds any tensor.
_CONTEXT = 1.5 * GB


def estimate(settings: Settings, anatomy: Anatomy, *, gpu: bool, served: float) -> MemoryNeed:
    """`served`: bytes of the same device that the engine uses."""
    size, tokens = anatomy.parameters, settings.optimizer.micro_batch_tokens
    needs_reference = settings.divergence.coefficient > 0 or settings.stored.method == "dpo"
    trained = 0.0 if settings.lora.rank else float(size)  # adapters are a few percent of a model
    inside = (2.0 if gpu else 4.0) * tokens * (10 * anatomy.width + 2 * anatomy.layer / anatomy.width)
    return MemoryNeed(
        {
            "weights": 4.0 * size,
            "weights before adapters": 4.0 * (size - trained),
            "optimizer": 8.0 * trained,
            "gradients": 4.0 * trained,
            "the reference": 4.0 * size if needs_reference else 0.0,
            "the engine": served,
            "copies in bfloat16": 2.0 * size if gpu else 0.0,
            "activations": inside * anatomy.layers,
            "logits": float(_LOGIT_BYTES * tokens * anatomy.vocabulary),
            "the rest": _CONTEXT if gpu else 0.0,
        }
    )


def check_memory(settings: Settings, anatomy: Anatomy | None, served: float, ways: str, *, spare: float = 0.0) -> None:
    """Raise SettingError if the model cannot be trained here; warn if memory may be short.

    `ways`: what to do; `spare`: how many of the bytes `served` the engine can do without, or with another GPU all.
    """
    if anatomy is None:
        return
    gpu = torch.cuda.is_available()
    room = float(torch.cuda.get_device_properties(0).total_memory if gpu else _memory())
    need = estimate(settings, anatomy, gpu=gpu, served=served)
    check_fit(settings, need, room, f"{room_of_engine(need, room, spare)}{ways}", gpu=gpu)


def check_fit(settings: Settings, need: MemoryNeed, room: float, ways: str, *, gpu: bool) -> None:
    """As `check_memory`, for a device with `room` bytes."""
    tokens = settings.optimizer.micro_batch_tokens
    device = "the GPU" if gpu else "this machine"
    size = f"{need.parts['weights'] / 4e9:.1f} billion parameters"
    what = f"training {size} here takes about {need.total / GB:.0f} of the {room / GB:.0f} GB of {device}: {need}"
    certain = sum(need.parts[name] for name in _CERTAIN)
    if certain > room and gpu:
        raise SettingError(f"{what}; {ways}")
    if need.total > room:
        log.warning("%s; if that is too much, lower optimizer.micro_batch_tokens=%d, or %s", what, tokens, ways)


def room_of_engine(need: MemoryNeed, room: float, spare: float) -> str:
    """What of the engine's share would be enough for the learner, as the beginning of the ways; '' if nothing."""
    batch = need.parts["activations"] + need.parts["logits"]  # which optimizer.micro_batch_tokens makes small
    least = need.total - batch
    less = "lower serving.memory, " if spare and least - spare <= room else ""
    return less + ("give vLLM another GPU, or " if spare and least - need.parts["the engine"] <= room else "")


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
