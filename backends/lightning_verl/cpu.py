"""A platform 'cpu' for VERL, which ships none: its real loop, with vLLM's build for CPUs, where there is no GPU.

Ray is told of GPUs that are not there, one for each process that trains; each is a process on the CPU.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any

import torch

_WORKER = "verl.workers.rollout.vllm_rollout.utils"


def install() -> None:
    """Make it the platform of this process."""
    from verl.plugin.platform import platform_manager  # noqa: PLC0415 - while VERL itself is being imported

    # VERL registers its FSDP engine for accelerators only; its code runs on a CPU as it is.
    os.environ["VERL_ENGINE_DEVICE"] = "cuda"
    platform_manager.set_platform(_platform(platform_manager.PlatformRegistry))
    _one_backend()
    sys.meta_path.insert(0, _Finder())


def _device_module() -> types.ModuleType:
    """What VERL calls where it would call `torch.cuda`."""
    module = types.ModuleType("lightning_verl_cpu_device")
    nothing = ("set_device", "synchronize", "empty_cache", "ipc_collect", "reset_peak_memory_stats")
    zero = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
    given: dict[str, Any] = {
        **{name: lambda *_, **__: None for name in nothing},
        **{name: lambda *_, **__: 0 for name in zero},
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "current_device": lambda: "cpu",
        "get_device_name": lambda *_, **__: "CPU",
        "get_device_properties": lambda *_, **__: types.SimpleNamespace(name="CPU", total_memory=_memory()),
        "mem_get_info": lambda *_, **__: (_memory(), _memory()),
        "get_rng_state": lambda *_, **__: torch.get_rng_state(),
        "set_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "Stream": torch.cpu.Stream,
        "stream": torch.cpu.stream,
        "current_stream": torch.cpu.current_stream,
    }
    vars(module).update(given)
    return module


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _platform(registry: Any) -> Any:
    from verl.plugin.platform.platform_base import PlatformBase  # noqa: PLC0415 - as above

    module = _device_module()

    @registry.register("cpu")
    class Platform(PlatformBase):  # type: ignore[misc]
        device_name = property(lambda _: "cpu")
        vendor_name = property(lambda _: "generic")
        device_module = property(lambda _: module)

        def is_available(self) -> bool:
            return True

        def is_platform_available(self, use_smi_check: bool = False) -> bool:
            return True

        def current_device(self) -> str:
            return "cpu"

        def device_count(self) -> int:
            return 1

        def set_device(self, index: Any) -> None: ...

        def synchronize(self, index: Any = None) -> None: ...

        def manual_seed(self, seed: int) -> None:
            torch.manual_seed(seed)

        def manual_seed_all(self, seed: int) -> None:
            torch.manual_seed(seed)

        def set_allocator_settings(self, settings: str) -> None: ...

        def empty_cache(self) -> None: ...

        def get_device_capability(self, index: int = 0) -> tuple[None, None]:
            return None, None

        def communication_backend_name(self) -> str:
            return "gloo"

        def visible_devices_envvar(self) -> str:
            return "CUDA_VISIBLE_DEVICES"

        def nvtx_range(self, message: str) -> Any:
            return contextlib.nullcontext()

        def profiler_start(self) -> None: ...

        def profiler_stop(self) -> None: ...

        def ray_resource_name(self) -> str:
            return "GPU"

        def ray_resource_options(self, count: float) -> dict[str, float]:
            return {"num_gpus": count}

        def ray_noset_envvars(self) -> list[str]:
            return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

        def is_ipc_supported(self) -> bool:
            return False

        def cudart(self) -> None:
            return None

    return Platform()


def _one_backend() -> None:
    """VERL asks for gloo for the device and for the CPU, which here are one: torch takes each device once."""
    from torch import distributed  # noqa: PLC0415 - as above

    original = distributed.init_process_group

    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    distributed.init_process_group = init_process_group

    from verl.utils import fsdp_utils  # noqa: PLC0415 - as above

    offload = fsdp_utils.CPUOffloadPolicy

    class Unpinned(offload):  # type: ignore[misc, valid-type]
        """Memory can only be pinned for an accelerator."""

        def __init__(self, pin_memory: bool = False) -> None:
            super().__init__(pin_memory=False)

    fsdp_utils.CPUOffloadPolicy = Unpinned


class _Finder(importlib.abc.MetaPathFinder):
    """Changes VERL's part of vLLM's workers when it is imported, which may be never in this process."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run(module)
            _reload_weights(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _reload_weights(module: Any) -> None:
    """vLLM's workers repack weights for the CPU after loading: a plain load fails, a reload in place does not."""

    def update_weights(self: Any, weights: Any, **_: Any) -> None:
        self.model_runner.reload_weights(weights_iterator=((name, tensor.clone()) for name, tensor in weights))

    module.vLLMColocateWorkerExtension._update_weights = update_weights
