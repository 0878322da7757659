"""A platform 'cpu' for VERL, which has none: runs its real loop, with vLLM's build for CPUs, without a GPU.

Ray is told that there is one GPU for each process that trains; each is in fact a process on the CPU.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import inspect
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

_WORKER, _SERVER = (f"verl.workers.rollout.vllm_rollout.{name}" for name in ("utils", "vllm_async_server"))


def install() -> None:
    """Make this the platform of this process."""
    from verl.plugin.platform import platform_manager  # noqa: PLC0415 - while VERL itself is being imported

    from lightning_verl.cpu_platform import Platform  # noqa: PLC0415 - as above

    # VERL registers its FSDP engine for accelerators only, but its code also runs on a CPU.
    os.environ["VERL_ENGINE_DEVICE"] = "cuda"
    platform_manager.set_platform(Platform())
    _use_one_backend()
    _disable_pinning()
    sys.meta_path.insert(0, _Finder())


def _use_one_backend() -> None:
    """VERL requests gloo for the device and for the CPU. Here they are the same, and torch accepts each device once."""
    from torch import distributed  # noqa: PLC0415 - as above

    original = distributed.init_process_group

    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    distributed.init_process_group = init_process_group


def _disable_pinning() -> None:
    """Memory can only be pinned for an accelerator, which VERL does when it offloads a reference model."""
    from verl.utils import fsdp_utils  # noqa: PLC0415 - as above

    offload = fsdp_utils.CPUOffloadPolicy

    class Unpinned(offload):  # type: ignore[misc, valid-type]
        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp_utils.CPUOffloadPolicy = Unpinned


class _Finder(importlib.abc.MetaPathFinder):
    """Patches VERL's modules around vLLM when they are imported, if they ever are."""

    def __init__(self) -> None:
        self._changes = {_WORKER: _reload_weights, _SERVER: _pause}

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        change = self._changes.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _reload_weights(module: Any) -> None:
    """vLLM's workers repack weights for the CPU after loading, so a plain load fails but a reload in place works."""

    def update_weights(self: Any, weights: Any, **_: Any) -> None:
        self.model_runner.reload_weights(weights_iterator=((name, tensor.clone()) for name, tensor in weights))

    module.vLLMColocateWorkerExtension._update_weights = update_weights


def _pause(module: Any) -> None:
    """vLLM's build for CPUs is newer than the version that VERL supports, and only pauses by mode."""
    original = module.AsyncLLM.pause_generation

    async def pause_generation(
        self: Any, *, mode: str = "abort", wait_for_inflight_requests: bool = False, **given: Any
    ) -> None:
        await original(self, mode="wait" if wait_for_inflight_requests else mode, **given)

    if "wait_for_inflight_requests" not in inspect.signature(original).parameters:
        module.AsyncLLM.pause_generation = pause_generation
