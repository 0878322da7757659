"""VERL's trainers (version 1) with the hub's loss, learning rate, mini-batches and callbacks.

Each is VERL's own class with the same mixin in front of it. The private names of VERL used here are those of 0.9.1; the
version is pinned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import ray
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from lightning_process.phases import Phases
from lightning_verl.config import DISAGGREGATED
from lightning_verl.loss import LossRules, policy_loss
from lightning_verl.rows import ROLES
from lightning_verl.worker import HubWorker


class HubTrainerMixin:
    """Comes before one of VERL's trainers in the method resolution order."""

    rules: LossRules
    rate: float = 0.0
    """Learning rate of the next step."""
    roles: int = 1
    """Number of roles in the next batch."""
    on_learned: Callable[[], None]
    """Called when a step has changed the weights; they are served after it returns."""
    on_step: Callable[[dict[str, Any]], None]
    """Called with each step's metrics once its weights are served."""

    phases: Phases
    """Phases of the start, beginning with the first worker."""

    @property
    def processes(self) -> int:
        """Number of processes that train; each gets a part of every batch."""
        trainer = self.config.trainer  # type: ignore[attr-defined]
        return int(trainer.nnodes * trainer.n_gpus_per_node)

    @property
    def servers(self) -> Any:
        """VERL's manager of the vLLM servers."""
        return self.llm_server_manager  # type: ignore[attr-defined]

    def serve(self, version: int) -> None:
        """Between two steps, make the servers answer with the current weights."""
        self.checkpoint_manager.sleep_replicas()  # type: ignore[attr-defined]
        self.checkpoint_manager.update_weights(version)  # type: ignore[attr-defined]

    def forget_server(self, rank: int) -> None:
        """Called when this vLLM server was replaced, so that processes that send it weights look it up again."""
        self.actor_rollout_wg.forget_server()

    def on_step_end(self) -> None:
        self.on_learned()
        super().on_step_end()  # type: ignore[misc]

    def _init_resource_pool_mgr(self) -> None:
        self.phases = Phases()
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        mapping = self.role_worker_mapping  # type: ignore[attr-defined]
        mapping.update({role: ray.remote(HubWorker) for role in mapping if "critic" not in str(role).lower()})

    def on_init_end(self) -> None:
        launched = [each.launched for each in self.servers.get_replicas()]
        self.phases.end("workers", at=min(launched, default=None))
        self.phases.end("vllm")
        self.actor_rollout_wg.set_loss_fn(partial(policy_loss, self.rules))
        super().on_init_end()  # type: ignore[misc]
        self.phases.end("weights")

    @property
    def actor_rollout_wg(self) -> Any:
        return self._workers

    @actor_rollout_wg.setter
    def actor_rollout_wg(self, group: Any) -> None:
        """VERL sets this when its workers begin to start, then waits for them. vLLM's processes can start meanwhile."""
        self._workers = group
        import_module("lightning_verl.server").start_servers_early(self.config)  # type: ignore[attr-defined]

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size  # the feeder has padded the batch

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.rules.settings.algorithm.mini_batches == 1:
            return super()._balance_batch(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        return batch  # the feeder has split rollouts among the steps

    def _compute_old_log_prob(self, batch: Any, metrics: dict[str, Any]) -> Any:
        # With a single optimizer step the old policy is the current one. (Where vLLM has separate GPUs, VERL's trainer
        # would first copy all weights, for several updates between two transfers; here every update is sent.)
        return PPOTrainer._compute_old_log_prob(self, batch, metrics) if self.rules.needs_old_logprobs else batch

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        # The rows came with the hub's advantages. Fetch all fields later, since those of the reference are new.
        batch.fields = None
        return batch

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        actor = self.config.actor_rollout_ref.actor  # type: ignore[attr-defined]
        actor.ppo_mini_batch_size = len(batch) // self.rules.settings.algorithm.mini_batches
        batch.extra_info[ROLES] = self.roles
        self.actor_rollout_wg.set_rate(self.rate)
        return super()._update_actor(batch, metrics)  # type: ignore[misc]

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], timing: Any, **place: Any) -> None:
        # VERL's own would fetch every row again, for numbers that the hub already has.
        tokens = sum(tag["seq_len"] for tag in batch.tags)
        metrics |= {f"timing_s/{name}": seconds for name, seconds in timing.items()}
        metrics |= {"perf/total_num_tokens": tokens, "perf/throughput": tokens / timing["step"] / self.processes}
        self.on_step(metrics)


class DisaggregatedMixin(HubTrainerMixin):
    """For the trainer whose vLLM servers have separate GPUs, to which weights are sent."""

    @property
    def servers(self) -> Any:
        return self.standalone_server_manager  # type: ignore[attr-defined]

    def serve(self, version: int) -> None:
        self.standalone_checkpoint_manager.update_weights(version)  # type: ignore[attr-defined]

    def forget_server(self, rank: int) -> None:
        workers = self.servers.get_replicas()[rank].workers
        ray.get([worker.__ray_call__.remote(_forget_server) for worker in workers])

    def _setup(self) -> None:
        # Without servers on the learner's GPUs VERL 0.9.1 logs one line in a way that logging refuses.
        log = logging.getLogger("verl.trainer.ppo.v1.trainer_separate_async")
        level = log.level
        log.setLevel(logging.WARNING)
        try:
            super()._setup()  # type: ignore[misc]
        finally:
            log.setLevel(level)


def _forget_server(worker: Any) -> None:
    """Runs in the VERL process that belongs to a vLLM server."""
    worker.server_adapter.forget_server()


def make_trainer(
    config: Any, rules: LossRules, on_learned: Callable[[], None], on_step: Callable[[dict[str, Any]], None]
) -> Any:
    """VERL's trainer of the configured mode with `HubTrainerMixin`, created but not started."""
    mode = config.trainer.v1.trainer_mode
    mixin = DisaggregatedMixin if mode == DISAGGREGATED else HubTrainerMixin
    cls = type(f"Hub{mode.title()}", (mixin, get_trainer_cls(mode)), {})
    trainer = cls(config=config)
    trainer.rules, trainer.on_learned, trainer.on_step = rules, on_learned, on_step
    return trainer
