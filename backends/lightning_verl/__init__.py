"""The VERL backend: vLLM serves, and VERL trains with FSDP2 on Ray, on one machine or a cluster, on GPUs or a CPU."""

from __future__ import annotations

from lightning_hub.backend import BackendSpec
from lightning_verl.process import refuse_at_start, start

__all__ = ["backend"]

backend = BackendSpec(
    name="verl",
    honours=frozenset(
        {
            "model",
            "engine",
            "tune",
            "algorithm.loss",
            "algorithm.clip_low",
            "algorithm.clip_high",
            "algorithm.clip_dual",
            "algorithm.entropy",
            "algorithm.epochs",
            "algorithm.mini_batches",
            "divergence.*",
            "importance.*",
            "optimizer.*",
            "lora.*",
            "serving.*",
            "cluster.*",
            "actor_rollout_ref.*",
            "data.*",
            "global_profiler.*",
            "ray_kwargs.*",
            "reward.*",
            "trainer.*",
            "transfer_queue.*",
            "verl.*",
            "vllm.*",
        }
    ),
    start=start,
    refuse=refuse_at_start,
    smaller_checkpoints="--set actor_rollout_ref.actor.checkpoint.save_contents=[hf_model], which saves "
    "the model alone, a quarter of that, from which the run cannot be resumed",
)
