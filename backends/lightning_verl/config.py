"""VERL's configuration, made from our settings and from VERL's own settings that the user gave.

Three layers, each overriding the one before: our settings in VERL's terms, which a user may override; the user's own
settings for VERL; and what the backend requires, with a warning where it overrides the user's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lightning_process.anatomy import Anatomy
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_verl.checkpoint import MODEL_ALONE, RESUMABLE
from lightning_verl.memory import fit_memory
from lightning_verl.plugin import SOCKETS
from lightning_vllm.command import extra_arguments

log = logging.getLogger(__name__)

#: More steps than any run has, since the hub ends the run.
ENDLESS = 10**6
#: File of the classes that replace VERL's dataset and sampler. Importing it would import VERL, which is slow.
_SLOTS = str(Path(__file__).with_name("slots.py"))
#: VERL's groups that accept any name.
_FREE = {"fsdp_config", "override_config", "engine_kwargs"}
_ACTOR, _ROLLOUT, _MODEL, _REF = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model", "ref"))
_TRANSFER = f"{_ROLLOUT}.checkpoint_engine"
#: VERL's trainer mode in which vLLM has separate GPUs.
DISAGGREGATED = "separate_async"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlacement:
    """The machines and the model of a run, as they were found."""

    device: str
    """'cuda' or 'cpu'."""
    nodes: int
    gpus: int
    """Processes that train on each node, also on a CPU."""
    model: str
    """Folder in Hugging Face format, or hub name."""
    name: str
    """Name under which the model is served."""
    max_length: int
    """Tokens of prompt and completion together."""
    flash_attention: bool = False
    """Whether flash-attn is installed."""
    anatomy: Anatomy | None = None
    """The model's, if known."""
    gpu_bytes: int = 0
    """Memory of one GPU, 0 without GPUs."""
    tool_parser: str = "none"
    """vLLM's name of the tool parser."""


def configuration(settings: Settings, place: RunPlacement, folder: Path) -> DictConfig:
    """The configuration for VERL's trainer. SettingError for a setting that VERL does not have, or what does not fit
    the GPUs."""
    _refuse(settings, place)
    with initialize_config_dir(_folder(), version_base=None):
        config = compose("ppo_trainer")
    for name, value in map_settings(settings, place).items():
        _set(config, name, value)
    given = {_plain(name): value for name, value in settings.verbatim.items() if not name.startswith("vllm.")}
    for name, value in given.items():
        _set(config, name, parse_yaml(value), given=True)
    for name, value in extra_arguments(settings).items():
        _set(config, f"{_ROLLOUT}.engine_kwargs.vllm.{name}", parse_yaml(value))
    for name, value in _required_values(settings, place, folder).items():
        if name in given and parse_yaml(given[name]) != value:
            log.warning("setting %s=%r has no effect: this backend requires %r", name, given[name], value)
        _set(config, name, value)
    rollout, model = config.actor_rollout_ref.rollout, config.actor_rollout_ref.model
    if model.use_fused_kernels and not can_fuse_kernels(settings, place):
        raise SettingError(
            f"setting {_MODEL}.use_fused_kernels={model.use_fused_kernels}: these kernels use only the weight of the "
            "model's head and ignore the rest of it (a bias, a scale, a cap, an adapter); remove this setting"
        )
    saved = list(config.actor_rollout_ref.actor.checkpoint.save_contents)
    if set(saved) not in (set(RESUMABLE), set(MODEL_ALONE)):
        raise SettingError(
            f"setting {_ACTOR}.checkpoint.save_contents={saved}: a checkpoint holds [{', '.join(RESUMABLE)}], or "
            f"[{', '.join(MODEL_ALONE)}] alone, which cannot be resumed from"
        )
    if trainer_mode(settings) == DISAGGREGATED and rollout.checkpoint_engine.backend == "naive":
        raise SettingError(
            f"setting {_TRANSFER}.backend='naive': weights have to be sent to the GPUs of cluster.engine_gpus="
            f"{settings.cluster.engine_gpus}; remove this setting, or use 'nccl'"
        )
    if place.anatomy and place.gpu_bytes:
        fit_memory(config, place.anatomy, place.gpu_bytes, set(given), apart=trainer_mode(settings) == DISAGGREGATED)
    parallel = [rollout[f"{kind}_parallel_size"] for kind in ("tensor_model", "pipeline_model", "data")]
    if "distributed_executor_backend" not in rollout.engine_kwargs.vllm and parallel == [1, 1, 1]:
        # vLLM's own default, which VERL overrides: one process fewer to start.
        _set(config, f"{_ROLLOUT}.engine_kwargs.vllm.distributed_executor_backend", "uni")
    return config


def _refuse(settings: Settings, place: RunPlacement) -> None:
    """Raise SettingError if servers do not fit the GPUs, or the package that moves weights between GPUs is missing."""
    width, replicas, apart = settings.serving.tensor_parallel, settings.serving.replicas, settings.cluster.engine_gpus
    serving = place.nodes * (apart or place.gpus)
    if serving % width:
        raise SettingError(
            f"setting serving.tensor_parallel={width}: it must divide the number of GPUs that serve, {serving}"
        )
    if replicas not in (0, serving // width):
        raise SettingError(
            f"setting serving.replicas={replicas}: VERL starts {serving // width} vLLM servers on {serving} GPUs with "
            f"serving.tensor_parallel={width}; leave it at 0"
        )
    if apart and place.device == "cuda" and find_spec("cupy") is None:
        raise SettingError(
            f"setting cluster.engine_gpus={apart}: VERL sends weights between GPUs with cupy, which the hub's Python "
            "does not have; install cupy-cuda12x or cupy-cuda13x there, or leave it at 0"
        )


def _folder() -> str:
    """The folder of VERL's configuration files, found without importing VERL."""
    found = find_spec("verl")
    assert found is not None and found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0]) / "trainer" / "config")


def _plain(name: str) -> str:
    """VERL's name of a setting, without our prefix 'verl.'."""
    return name.removeprefix("verl.")


def parse_yaml(given: Any) -> Any:
    """The value that a user's text would have in VERL's YAML files."""
    return yaml.safe_load(given) if isinstance(given, str) else given


def _set(config: DictConfig, name: str, value: Any, *, given: bool = False) -> None:
    if given and not _has_setting(config, name):
        raise SettingError(_unknown(config, name))
    OmegaConf.update(config, name, value, force_add=True)


def _has_setting(config: DictConfig, name: str) -> bool:
    """Whether VERL has this setting. Groups that its files leave empty, and engine options, accept any name."""
    parent, _, leaf = name.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    if isinstance(group, DictConfig):
        return leaf in group or not group or bool(_FREE & set(parent.split(".")))
    return group is None and bool(parent) and _has_setting(config, parent)


def _unknown(config: DictConfig, name: str) -> str:
    known = list(_names(OmegaConf.to_container(config, resolve=False, throw_on_missing=False)))
    close = get_close_matches(name, known, 1, 0.5)
    return f"setting {name}: VERL has no such setting{f'; did you mean {close[0]}?' if close else ''}"


def _names(values: Any, prefix: str = "") -> Any:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def map_settings(settings: Settings, place: RunPlacement) -> dict[str, Any]:
    """Our settings in VERL's terms. The user may override them with VERL's own names."""
    optimizer, cpu = settings.optimizer, place.device == "cpu"
    parser = None if place.tool_parser == "none" else place.tool_parser
    values: dict[str, Any] = {
        # Packed rows need flash-attn: without it, attention would need a mask over the whole pack. VERL also computes
        # log-probabilities in a loop over tokens then, unlike its fused kernels (benchmarks/verl_update.py).
        f"{_MODEL}.use_remove_padding": place.flash_attention,
        f"{_MODEL}.use_fused_kernels": not place.flash_attention and can_fuse_kernels(settings, place),
        f"{_MODEL}.fused_kernel_options.impl_backend": "torch",
        f"{_MODEL}.enable_gradient_checkpointing": not cpu,
        f"{_MODEL}.override_config.attn_implementation": "flash_attention_2" if place.flash_attention else "sdpa",
        f"{_MODEL}.lora_rank": settings.lora.rank,
        f"{_MODEL}.lora_alpha": settings.lora.alpha,
        f"{_MODEL}.target_modules": _modules(settings.lora.targets),
        f"{_MODEL}.lora.merge": settings.lora.rank > 0,  # vLLM serves the whole model, under one name
        f"{_ACTOR}.strategy": "fsdp2",
        f"{_ACTOR}.use_dynamic_bsz": True,
        f"{_ACTOR}.ppo_max_token_len_per_gpu": optimizer.micro_batch_tokens,  # a longer row gets its own micro-batch
        f"{_ACTOR}.use_torch_compile": not cpu,
        f"{_ACTOR}.fsdp_config.use_torch_compile": not cpu,
        f"{_ACTOR}.grad_clip": optimizer.max_norm,
        f"{_ACTOR}.optim.weight_decay": optimizer.weight_decay,
        f"{_ACTOR}.optim.betas": [optimizer.beta1, optimizer.beta2],
        f"{_ACTOR}.optim.clip_grad": optimizer.max_norm,
        f"{_ACTOR}.optim.override_optimizer_config": {"foreach": False},  # foreach needs as much memory as the weights
        f"{_ACTOR}.data_loader_seed": settings.seed,
        f"{_ACTOR}.checkpoint.save_contents": list(RESUMABLE),
        f"{_REF}.strategy": "fsdp2",
        f"{_REF}.use_torch_compile": not cpu,
        f"{_ROLLOUT}.dtype": "float32" if cpu else "bfloat16",
        f"{_ROLLOUT}.enforce_eager": cpu,
        f"{_ROLLOUT}.free_cache_engine": not cpu,
        f"{_ROLLOUT}.tensor_model_parallel_size": settings.serving.tensor_parallel,
        f"{_ROLLOUT}.gpu_memory_utilization": settings.serving.memory,
        f"{_ROLLOUT}.max_num_seqs": max(256, settings.rollouts.concurrency),
        f"{_ROLLOUT}.max_model_len": place.max_length,
        f"{_ROLLOUT}.max_num_batched_tokens": max(8192, place.max_length),
        f"{_ROLLOUT}.engine_kwargs.vllm.enable_auto_tool_choice": parser is not None,
        f"{_ROLLOUT}.engine_kwargs.vllm.tool_call_parser": parser,
        f"{_ROLLOUT}.engine_kwargs.vllm.middleware": "lightning_vllm.auth.AuthMiddleware",  # its servers ask for a key
        "reward.num_workers": 0,  # the hub computes rewards
    }
    return values | _weight_transfer(settings, cpu=cpu) | (_on_cpu() if cpu else {})


def can_fuse_kernels(settings: Settings, place: RunPlacement) -> bool:
    """Whether log-probabilities may be computed with the head's weight alone, without the logits of a whole batch."""
    targets = _modules(settings.lora.targets) if settings.lora.rank else ()
    adapted = "lm_head" in ([targets] if isinstance(targets, str) else targets)
    return place.anatomy is not None and place.anatomy.plain_head and not adapted


def _weight_transfer(settings: Settings, *, cpu: bool) -> dict[str, Any]:
    """How weights are sent to vLLM servers on separate GPUs."""
    if trainer_mode(settings) != DISAGGREGATED:
        return {}
    by = {f"{_TRANSFER}.backend": SOCKETS, f"{_TRANSFER}.custom_backend_module": "lightning_verl.cpu_weights"}
    return by if cpu else {f"{_TRANSFER}.backend": "nccl"}


def _on_cpu() -> dict[str, Any]:
    """Float32 throughout, and as few processes as possible."""
    exact = {
        f"{part}.fsdp_config.{name}": value
        for part in (_ACTOR, _REF)
        for name, value in (("model_dtype", "fp32"), ("mixed_precision.param_dtype", "fp32"))
    }
    return exact | {
        f"{_ROLLOUT}.enable_sleep_mode": False,
        f"{_ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes": 8192,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }


def _required_values(settings: Settings, place: RunPlacement, folder: Path) -> dict[str, Any]:
    """Values that the backend requires."""
    algorithm = settings.algorithm
    apart = {
        "actor_rollout_ref.hybrid_engine": False,  # no vLLM on the learner's GPUs
        f"{_ROLLOUT}.nnodes": place.nodes,
        f"{_ROLLOUT}.n_gpus_per_node": settings.cluster.engine_gpus,
        f"{_ROLLOUT}.free_cache_engine": False,  # requests are kept during an update
        f"{_ACTOR}.ppo_mini_batch_size": 1,  # in slots: a step has one, and the trainer sets the number of rows
    }
    return (apart if trainer_mode(settings) == DISAGGREGATED else {}) | {
        f"{_MODEL}.path": place.model,
        f"{_ROLLOUT}.name": "vllm",
        f"{_ROLLOUT}.mode": "async",
        f"{_ROLLOUT}.engine_kwargs.vllm.served_model_name": place.name,
        f"{_ROLLOUT}.n": 1,
        f"{_ROLLOUT}.temperature": settings.sampling.temperature,
        f"{_ROLLOUT}.calculate_log_probs": True,
        f"{_ROLLOUT}.response_length": place.max_length,
        f"{_ROLLOUT}.prompt_length": place.max_length,
        f"{_ROLLOUT}.agent.agent_loop_manager_class": "lightning_verl.feeder.Feeder",
        f"{_ACTOR}.ppo_epochs": algorithm.epochs,
        f"{_ACTOR}.shuffle": False,
        f"{_ACTOR}.calculate_entropy": True,
        f"{_ACTOR}.use_kl_loss": settings.divergence.coefficient > 0,
        f"{_ACTOR}.optim.lr_scheduler_type": "constant",
        f"{_ACTOR}.optim.lr": settings.optimizer.learning_rate or 1e-6,
        f"{_ACTOR}.checkpoint.load_contents": ["model", "optimizer", "extra"],
        "algorithm.adv_estimator": "grpo",  # any estimator without a critic: the hub computes the advantages
        "algorithm.use_kl_in_reward": False,
        "algorithm.rollout_correction.bypass_mode": False,
        "data.train_batch_size": 1,
        "data.gen_batch_size": 1,
        "data.train_files": [],
        "data.val_files": [],
        "data.shuffle": False,
        "data.dataloader_num_workers": 0,
        "data.custom_cls.path": _SLOTS,
        "data.custom_cls.name": "StepSlots",
        "trainer.device": place.device,
        "trainer.nnodes": place.nodes,
        "trainer.n_gpus_per_node": place.gpus,
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": trainer_mode(settings),
        "trainer.v1.sampler.max_off_policy_threshold": None,  # the hub limits the staleness of rollouts
        "trainer.v1.sampler.custom_sampler.path": _SLOTS,
        "trainer.v1.sampler.custom_sampler.name": "StepSampler",
        "trainer.v1.colocate_async.num_warmup_batches": 0,
        "trainer.v1.separate_async.num_warmup_batches": 0,
        "trainer.v1.separate_async.parameter_sync_step": 1,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        "trainer.logger": [],
        "trainer.total_training_steps": ENDLESS,
        "trainer.total_epochs": ENDLESS,
        "trainer.default_local_dir": str(folder / "verl"),
    }


def trainer_mode(settings: Settings) -> str:
    """VERL's trainer mode. With staleness, rollouts continue during an update if vLLM has separate GPUs; if not, their
    requests are cancelled and sent again."""
    if not settings.rollouts.staleness:
        return "sync"
    return DISAGGREGATED if settings.cluster.engine_gpus else "colocate_async"


def _modules(targets: str) -> str | list[str]:
    names = [each.strip() for each in targets.split(",") if each.strip()]
    return names[0] if len(names) == 1 else names
