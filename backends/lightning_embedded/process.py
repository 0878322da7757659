"""How the hub starts the embedded backend."""

from __future__ import annotations

from pathlib import Path

from lightning_process.child import Child
from lightning_process.source import locate
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_vllm import available

#: Settings of vLLM's servers, except `serving.host`, which applies to this engine too.
_OF_VLLM = ("vllm.", "serving.")
#: Keeps torch from slowing other processes down.
ENVIRONMENT = {
    # Agents and hub share the cores: spinning threads make small matrix products many times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def start(settings: Settings, folder: Path) -> Child:
    """Start the backend, with its log in the run's folder. ModelError for a model that cannot be served.

    SettingError for settings that contradict each other.
    """
    refuse(settings)
    return Child("embedded", "lightning_embedded", settings, folder, ENVIRONMENT)


def refuse(settings: Settings) -> None:
    """Raise the errors of `start` that need no import of torch."""
    if settings.algorithm.clip_dual and settings.algorithm.loss == "cispo":
        raise SettingError(
            f"setting algorithm.clip_dual={settings.algorithm.clip_dual}: 'cispo' has no dual clip, since clip_high "
            "bounds its weights; set it to 0, or use algorithm.loss=ppo"
        )
    locate(settings.model)
    if settings.engine == "vllm":
        available.check(settings)
    else:
        _refuse_without_vllm(settings)


def _refuse_without_vllm(settings: Settings) -> None:
    for name, value in settings.changes().items():
        if name.startswith(_OF_VLLM) and name != "serving.host":
            raise SettingError(f"setting {name}={value!r} is for vLLM's servers: set engine=vllm, or leave it out")
