"""The memory that a run needs on each GPU, estimated from the model's anatomy before anything is loaded.

VERL shards weights, gradients and AdamW's two moments in float32 over all GPUs that train. vLLM has its share of the
same GPUs while it serves, and sleeps during an update. What does not fit while vLLM serves is offloaded to the host's
memory; what does not fit during an update is refused, or gets a warning if it is close.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil
from typing import Any

from omegaconf import DictConfig

from lightning_process.anatomy import Anatomy
from lightning_process.memory_need import GB, MemoryNeed
from lightning_sdk.errors import SettingError
from lightning_sdk.results.quantity import quantity

log = logging.getLogger(__name__)

ENGINE = "actor_rollout_ref.actor.fsdp_config"
#: Tokens whose logits VERL's fused kernels hold at once, bytes for each of these logits, and without fused kernels.
_CHUNK, _CHUNK_BYTES, _LOGIT_BYTES = 512, 20, 16
#: Memory of two processes on a GPU before they hold any tensor, and of a sleeping vLLM.
_CONTEXTS = 3 * GB


@dataclass(frozen=True, slots=True)
class Fit:
    """The memory needed on a GPU."""

    updating: MemoryNeed
    serving: MemoryNeed
    """Including vLLM's share; empty if vLLM has separate GPUs."""


def estimate(config: DictConfig, anatomy: Anatomy, gpu_bytes: int, *, apart: bool) -> Fit:
    """Estimated from VERL's whole configuration. `apart`: vLLM has separate GPUs."""
    rollout, actor, model = (config.actor_rollout_ref[name] for name in ("rollout", "actor", "model"))
    engine, trainer = actor.fsdp_config, config.trainer
    processes = trainer.nnodes * trainer.n_gpus_per_node
    each, trained = weight_bytes(config), trained_parameters(anatomy, model.lora_rank)
    weights, moments = each * anatomy.parameters / processes, 2 * each * trained / processes
    offloaded = bool(engine.offload_policy)
    updating = MemoryNeed(
        {
            "weights": 0.0 if offloaded else weights,
            "optimizer": 0.0 if offloaded else moments,
            "gradients": 0.0 if offloaded else each * trained / processes,
            "layers at work": 2.0 * (2 * anatomy.layer + anatomy.head) + 6.0 * max(anatomy.layer, anatomy.head),
            "activations": _activations(anatomy, actor.ppo_max_token_len_per_gpu, model.enable_gradient_checkpointing),
            "logits": _logits(anatomy, actor.ppo_max_token_len_per_gpu, fused=bool(model.use_fused_kernels)),
            "the rest": _CONTEXTS,
        }
    )
    if apart:
        return Fit(updating, MemoryNeed({}))
    return Fit(
        updating,
        MemoryNeed(
            {
                "weights": 0.0 if offloaded or engine.param_offload else weights,
                "optimizer": 0.0 if offloaded or engine.optimizer_offload else moments,
                "vLLM": rollout.gpu_memory_utilization * gpu_bytes,
                "the rest": _CONTEXTS,
            }
        ),
    )


def fit_memory(config: DictConfig, anatomy: Anatomy, gpu_bytes: int, given: set[str], *, apart: bool) -> Fit:
    """Offload what does not fit while vLLM serves, except for settings that the user has `given`, and check the rest.

    SettingError if it cannot fit, with what to set.
    """
    for name in ("optimizer_offload", "param_offload"):
        fit = estimate(config, anatomy, gpu_bytes, apart=apart)
        if fit.serving.total > gpu_bytes and f"{ENGINE}.{name}" not in given:
            config.actor_rollout_ref.actor.fsdp_config[name] = True
            log.warning(
                "%s does not fit on the GPU together with vLLM (%s, of %s): %s.%s=true is set",
                _of(name),
                fit.serving,
                f"{gpu_bytes / GB:.0f} GB",
                ENGINE,
                name,
            )
    fit = estimate(config, anatomy, gpu_bytes, apart=apart)
    _check_fit(config, anatomy, gpu_bytes, fit)
    return fit


def _check_fit(config: DictConfig, anatomy: Anatomy, gpu_bytes: int, fit: Fit) -> None:
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    size, room = f"{anatomy.parameters / 1e9:.1f} billion parameters", f"{gpu_bytes / GB:.0f} GB"
    share = rollout.gpu_memory_utilization * gpu_bytes
    width = rollout.tensor_model_parallel_size
    if (served := 2 * anatomy.parameters / width) > share:
        raise SettingError(
            f"setting serving.memory={rollout.gpu_memory_utilization}: vLLM's share of a GPU is {share / GB:.0f} of "
            f"{room}, but the weights of the model alone ({size}) take {served / GB:.0f} GB; raise it, or set "
            f"serving.tensor_parallel={width * 2}"
        )
    if fit.serving.total > gpu_bytes:
        raise SettingError(
            f"{size} and vLLM do not fit on a GPU of {room} together: {fit.serving}; lower serving.memory, or set "
            f"{ENGINE}.optimizer_offload=true and {ENGINE}.param_offload=true"
        )
    processes = trainer.nnodes * trainer.n_gpus_per_node
    certain = sum(fit.updating.parts[name] for name in ("weights", "optimizer", "gradients"))
    rest = fit.updating.total - certain
    wanted = ceil(certain * processes / max(1.0, gpu_bytes - rest)) if gpu_bytes > rest else 0
    more = f"cluster.gpus={wanted}" if processes < wanted <= 16 else "more GPUs"
    what = (
        f"an update of {size} on {quantity(processes, 'GPU')} of {room} takes about "
        f"{fit.updating.total / GB:.0f} GB of each: {fit.updating}"
    )
    ways = f"{more}, lora.rank=16, or {ENGINE}.offload_policy=true, which keeps weights and optimizer in host memory"
    if certain > gpu_bytes:
        raise SettingError(f"{what}; set {ways}")
    if fit.updating.total > gpu_bytes:
        log.warning(
            "%s; if that is too much, lower optimizer.micro_batch_tokens=%d or set %s",
            what,
            config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu,
            ways,
        )


def _of(name: str) -> str:
    return "The optimizer" if name == "optimizer_offload" else "The learner"


def weight_bytes(config: DictConfig) -> int:
    """Bytes of each weight that VERL trains."""
    return 4 if config.actor_rollout_ref.actor.fsdp_config.model_dtype in ("fp32", "float32") else 2


def trained_parameters(anatomy: Anatomy, rank: int) -> float:
    """Number of trained parameters. Adapters have two thin matrices for each of the model's."""
    return 2.0 * rank * anatomy.parameters / anatomy.width if rank else float(anatomy.parameters)


def _activations(anatomy: Anatomy, tokens: int, checkpointing: Any) -> float:
    """In bfloat16: with checkpointing, the input of every layer and the inside of one; otherwise the inside of all."""
    inside = 2.0 * tokens * (10 * anatomy.width + 2 * anatomy.layer / anatomy.width)
    return 2.0 * tokens * anatomy.width * anatomy.layers + inside if checkpointing else inside * anatomy.layers


def _logits(anatomy: Anatomy, tokens: int, *, fused: bool) -> float:
    every = min(_CHUNK, tokens) * _CHUNK_BYTES if fused else tokens * _LOGIT_BYTES
    return float(every * anatomy.vocabulary)
