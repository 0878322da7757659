"""The VERL backend's process: it joins or starts Ray, has the run made there, and answers the hub."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
import torch

from lightning_process.model import load
from lightning_process.program import Built, Config, run
from lightning_process.routes import LearnerRoutes
from lightning_process.source import Source, locate
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_verl.config import Place, configuration
from lightning_verl.driver import Driver
from lightning_verl.loss import Rules
from lightning_verl.plugin import ACTIVE
from lightning_verl.runner import Runner
from lightning_vllm.card import Card
from lightning_vllm.command import tool_parser
from lightning_vllm.front import Front
from lightning_vllm.reading import read

#: Where a Ray of our own keeps its sockets and logs.
_FOLDERS: list[str] = []
#: vLLM takes so many GB for keys and values on a CPU.
_CPU_CACHE = "1"


def build(config: Config) -> Built:
    """Ray, VERL on it, and the front before its vLLM servers."""
    settings = config.settings
    source = locate(settings.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _join(settings, device)
    name = Path(source.name).name
    card = read(_loadable(source, config.folder))
    place = _place(settings, device, card, name)
    verl = configuration(settings, place, config.folder)
    actor: Any = ray.remote(Runner)
    runner = actor.options(max_concurrency=8, num_cpus=1).remote(verl, Rules(settings))
    front = Front(config.key, name)
    facts: dict[str, object] = {
        "device": device, "nodes": place.nodes, "gpus_per_node": place.gpus,
        "trainer_mode": verl.trainer.v1.trainer_mode, "max_length": place.max_length, "tokenizer": card.tokenizer,
        "attention": str(verl.actor_rollout_ref.model.override_config.attn_implementation),
    }  # fmt: skip
    driver = Driver(settings, runner, runner.run.remote(), front, facts)
    app = front.app()
    LearnerRoutes(driver).add_to(app)
    return Built(app, name, driver.facts())


def _join(settings: Settings, device: str) -> None:
    """The Ray that the settings name, or one of our own."""
    variables = {ACTIVE: device, "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "INFO",
                 "TRANSFER_QUEUE_ENABLE": "1"}  # fmt: skip
    if device == "cpu":
        variables |= {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE),
                      "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # fmt: skip
    environment = {"env_vars": {**variables, **_kept()}}
    address = settings.cluster.address
    if address:
        try:
            ray.init(address=address, runtime_env=environment, log_to_driver=True)
        except (ConnectionError, ValueError) as error:
            raise SettingError(f"setting cluster.address={address!r}: no Ray answers there ({error})") from None
        return
    own: dict[str, Any] = {}
    if device == "cpu":
        processes = settings.cluster.gpus or 1
        own = {"num_cpus": max(8, os.cpu_count() or 1), "num_gpus": processes + settings.cluster.engine_gpus}
    _FOLDERS.append(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
    ray.init(address="local", include_dashboard=False, runtime_env=environment, log_to_driver=True,
             _temp_dir=_FOLDERS[-1], **own)  # fmt: skip


def _kept() -> dict[str, str]:
    """What the user's environment says to vLLM, NCCL and VERL goes to every process."""
    prefixes = ("VLLM_", "NCCL_", "VERL_", "HF_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _place(settings: Settings, device: str, card: Card, name: str) -> Place:
    cluster = settings.cluster
    found = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = max(found, default=0)
    gpus = cluster.gpus or most - cluster.engine_gpus
    whole = sum(each >= gpus + cluster.engine_gpus for each in found)
    if gpus < 1 or whole < cluster.nodes:
        raise SettingError(
            f"this Ray has {len(found)} machines with {', '.join(map(str, found))} GPUs, and cluster.nodes="
            f"{cluster.nodes}, cluster.gpus={cluster.gpus}, cluster.engine_gpus={cluster.engine_gpus} ask for more"
        )
    limit = card.max_length or 4096
    length = settings.serving.max_length or limit
    if length > limit:
        raise SettingError(f"setting serving.max_length={length}: the model takes {limit} tokens at most")
    flash = device == "cuda" and find_spec("flash_attn") is not None
    return Place(device, cluster.nodes, gpus, card.path, name, length, flash, card.plain_head,
                 tool_parser(settings, card))  # fmt: skip


def _loadable(source: Source, run_folder: Path) -> Source:
    """What VERL can load: a folder in Hugging Face format, or a hub name."""
    if not source.gguf:
        return source
    folder = run_folder / "model"
    loaded = load(source.name)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return Source(source.name, str(folder))


def _end() -> None:
    """Ray's processes of ours end with it; one that we joined only loses this run's actors."""
    with contextlib.suppress(Exception):
        ray.shutdown()
    for folder in _FOLDERS:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run(build, at_end=_end)
