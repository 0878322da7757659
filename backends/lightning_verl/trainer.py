"""VERL's trainers of version 1, with the hub's loss, its learning rate, its mini-batches and its ears.

Each is VERL's own class with the same few methods in front of it. Whatever is private to VERL and named here was read
in 0.9.1; the version is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from verl.trainer.ppo.v1 import get_trainer_cls

from lightning_verl.loss import Rules, policy_loss
from lightning_verl.rows import ROLES
from lightning_verl.worker import GuidedWorker


class Guided:
    """What is put in front of a trainer of VERL's."""

    rules: Rules
    rate: float = 0.0
    """Learning rate of the step that comes."""
    roles: int = 1
    """Roles of the batch that comes."""
    on_step: Callable[[dict[str, Any]], None]
    """Told of each step's metrics, once its weights are served."""

    @property
    def processes(self) -> int:
        """That train, each with a part of every batch."""
        trainer = self.config.trainer  # type: ignore[attr-defined]
        return int(trainer.nnodes * trainer.n_gpus_per_node)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()  # type: ignore[misc]
        mapping = self.role_worker_mapping  # type: ignore[attr-defined]
        mapping.update({role: ray.remote(GuidedWorker) for role in mapping if "critic" not in str(role).lower()})

    def on_init_end(self) -> None:
        self.actor_rollout_wg.set_loss_fn(partial(policy_loss, self.rules))  # type: ignore[attr-defined]
        super().on_init_end()  # type: ignore[misc]

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        return dp_size  # the feeder has filled up

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self.rules.settings.algorithm.mini_batches == 1:
            return super()._balance_batch(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        # The feeder has dealt rollouts out among the steps: each row to its place.
        batch.reorder(sorted(range(len(batch)), key=lambda at: int(batch.keys[at].split("_")[1])))
        return batch

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        actor = self.config.actor_rollout_ref.actor  # type: ignore[attr-defined]
        actor.ppo_mini_batch_size = len(batch) // self.rules.settings.algorithm.mini_batches
        batch.extra_info[ROLES] = self.roles
        self.actor_rollout_wg.set_rate(self.rate)  # type: ignore[attr-defined]
        return super()._update_actor(batch, metrics)  # type: ignore[misc]

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], timing: Any, **place: Any) -> None:
        super()._compute_metrics(batch, metrics, timing, **place)  # type: ignore[misc]
        self.on_step(metrics)


def guided(config: Any, rules: Rules, on_step: Callable[[dict[str, Any]], None]) -> Any:
    """VERL's trainer of the configured mode, with `Guided` in front of it, made but not started."""
    mode = config.trainer.v1.trainer_mode
    cls = type(f"Guided{mode.title()}", (Guided, get_trainer_cls(mode)), {})
    trainer = cls(config=config)
    trainer.rules, trainer.on_step = rules, on_step
    return trainer
