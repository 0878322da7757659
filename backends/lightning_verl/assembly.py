"""The assembly: inspects the model and the machines, makes VERL's configuration, and starts VERL's run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
import torch
from omegaconf import DictConfig

from lightning_process.model import load
from lightning_process.program import BackendConfig, ReadyBackend
from lightning_process.routes import LearnerRoutes
from lightning_process.source import Source
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_verl.checkpoint import checkpoint_bytes
from lightning_verl.config import RunPlacement, configuration
from lightning_verl.driver import Driver
from lightning_verl.loss import LossRules
from lightning_vllm.available import check_experts
from lightning_vllm.command import tool_parser
from lightning_vllm.front import Front
from lightning_vllm.model_info import ModelInfo
from lightning_vllm.model_reader import read_model_info


def assemble(config: BackendConfig, source: Source, device: str, runner: Any) -> ReadyBackend:
    """Start VERL's loop in its actor `runner`, and the front for its vLLM servers."""
    settings = config.settings
    name = Path(source.name).name
    info = read_model_info(_loadable(source, config.folder))
    check_experts(info, gpu=device == "cuda")
    place = _place(settings, device, info, name)
    verl = configuration(settings, place, config.folder)
    front = Front(config.key, name)
    facts: dict[str, object] = {
        "device": device,
        "nodes": place.nodes,
        "gpus_per_node": place.gpus,
        "trainer_mode": verl.trainer.v1.trainer_mode,
        "max_length": place.max_length,
        "tokenizer": info.tokenizer,
        "attention": str(verl.actor_rollout_ref.model.override_config.attn_implementation),
    }
    facts |= _model_facts(verl, info)
    config.phases.end("model")
    driver = Driver(settings, runner, runner.run.remote(verl, LossRules(settings)), front, facts)
    config.phases.end("trainer", driver.start)
    return ReadyBackend(front.app(), LearnerRoutes(driver), name, driver.facts())


def _model_facts(verl: DictConfig, info: ModelInfo) -> dict[str, object]:
    """What was chosen because of the model's size and its head, and how large its checkpoints are."""
    actor = verl.actor_rollout_ref.actor.fsdp_config
    kept = {
        "optimizer": actor.optimizer_offload or actor.offload_policy,
        "weights": actor.param_offload or actor.offload_policy,
    }
    facts: dict[str, object] = {
        "fused_kernels": bool(verl.actor_rollout_ref.model.use_fused_kernels),
        "in_host_memory": ", ".join(name for name, is_there in kept.items() if is_there),
    }
    return facts if info.anatomy is None else facts | {"checkpoint_bytes": int(checkpoint_bytes(verl, info.anatomy))}


def _place(settings: Settings, device: str, info: ModelInfo, name: str) -> RunPlacement:
    cluster = settings.cluster
    found = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    most = max(found, default=0)
    gpus = cluster.gpus or most - cluster.engine_gpus
    whole = sum(each >= gpus + cluster.engine_gpus for each in found)
    if gpus < 1 or whole < cluster.nodes:
        raise SettingError(
            f"this Ray cluster has {len(found)} machines with {', '.join(map(str, found))} GPUs, but cluster.nodes="
            f"{cluster.nodes}, cluster.gpus={cluster.gpus}, cluster.engine_gpus={cluster.engine_gpus} ask for more"
        )
    limit = info.max_length or 4096
    length = settings.serving.max_length or limit
    if length > limit:
        raise SettingError(f"setting serving.max_length={length}: the model supports at most {limit} tokens")
    flash = device == "cuda" and find_spec("flash_attn") is not None
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else 0
    return RunPlacement(
        device=device,
        nodes=cluster.nodes,
        gpus=gpus,
        model=info.path,
        name=name,
        max_length=length,
        flash_attention=flash,
        anatomy=info.anatomy,
        gpu_bytes=memory,
        tool_parser=tool_parser(settings, info),
    )


def _loadable(source: Source, run_folder: Path) -> Source:
    """A source that VERL can load: a folder in Hugging Face format, or a hub name."""
    if not source.gguf:
        return source
    folder = run_folder / "model"
    loaded = load(source.name)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return Source(source.name, str(folder))
