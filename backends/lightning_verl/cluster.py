"""The Ray cluster of a run: the one in the settings, or a local one that ends with the run."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from typing import Any

import ray

from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_verl.plugin import ACTIVE
from lightning_vllm.auth import KEY

#: Folders where our local Ray keeps its sockets and logs.
_FOLDERS: list[str] = []
#: GB that vLLM uses for keys and values on a CPU.
_CPU_CACHE = "1"


def join(settings: Settings, device: str) -> None:
    """Connect to the Ray in the settings, or start a local one. SettingError if it does not answer."""
    variables = {
        ACTIVE: device,
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "INFO",
        "TRANSFER_QUEUE_ENABLE": "1",
    }
    if device == "cpu":
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
    os.environ[KEY] = secrets.token_urlsafe(24)  # for this run: its vLLM servers ask for it, and the front sends it
    environment = {"env_vars": {**variables, **_inherited_variables()}}
    address = settings.cluster.address
    if address:
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=True)
        except (ConnectionError, ValueError) as error:
            raise SettingError(f"setting cluster.address={address!r}: no Ray answers there ({error})") from None
        return
    own: dict[str, Any] = {}
    if device == "cpu":
        gpus = (settings.cluster.gpus or 1) + settings.cluster.engine_gpus
        # VERL requests three CPUs with each GPU, and would wait forever without them.
        own = {"num_cpus": max(4 + 4 * gpus, os.cpu_count() or 1), "num_gpus": gpus}
    _FOLDERS.append(tempfile.mkdtemp(prefix="ray-"))  # short, since it contains sockets
    # Workers that Ray starts in advance lack our environment variables, so none of them would be used.
    ray.init(
        address="local",
        include_dashboard=False,
        runtime_env=environment,
        log_to_driver=True,
        _temp_dir=_FOLDERS[-1],
        _system_config={"prestart_worker_first_driver": False},
        **own,
    )


def leave() -> None:
    """End our local Ray. A cluster that we joined only loses this run's actors."""
    with contextlib.suppress(Exception):
        ray.shutdown()
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


def _inherited_variables() -> dict[str, str]:
    """The user's environment variables for vLLM, NCCL and VERL, which every process gets."""
    prefixes = ("VLLM_", "NCCL_", "VERL_", "HF_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
