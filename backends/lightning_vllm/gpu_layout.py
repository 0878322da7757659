"""Which GPUs, or how many threads, each server gets next to the learner."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_vllm.command import ServerPlacement


def visible_gpus(count: int) -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    named = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def place_servers(settings: Settings, gpus: Sequence[str], cores: int, *, small: bool) -> list[ServerPlacement]:
    """Where servers run when a learner uses the first of `gpus`, or the CPU if there are none.

    The learner's GPU also serves if it is the only one, or if the replicas need it. `small`: on a CPU, the model is
    faster on one thread than on several. SettingError if there is no room for all servers.
    """
    serving = settings.serving
    if not gpus:
        return _on_cpu(settings, cores, small=small)
    width = serving.tensor_parallel
    apart = list(gpus[1:])
    wanted = serving.replicas or max(1, len(apart) // width)
    free = apart if wanted * width <= len(apart) else list(gpus)
    if wanted * width > len(free):
        raise SettingError(
            f"setting serving.replicas={wanted}, serving.tensor_parallel={width}: they need {wanted * width} GPUs, "
            f"but this process sees {len(gpus)}"
        )
    cut = [tuple(free[at : at + width]) for at in range(0, wanted * width, width)]
    return [ServerPlacement(each, shared=each == (gpus[0],)) for each in cut]


def _on_cpu(settings: Settings, cores: int, *, small: bool) -> list[ServerPlacement]:
    serving = settings.serving
    if serving.tensor_parallel > 1:
        raise SettingError(f"setting serving.tensor_parallel={serving.tensor_parallel}: there is no GPU here")
    replicas = serving.replicas or 1
    return [ServerPlacement(threads=1 if small else max(1, cores // replicas))] * replicas
