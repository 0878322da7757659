"""VERL's worker, extended with what the hub sets at each step and needs to know."""

from __future__ import annotations

from typing import Any

from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker

from lightning_verl import engine, plugin


class HubWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """One process that trains. (VERL would mistake a class called `Worker` for its own base class.)"""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        plugin.require()
        engine.choose()
        super().__init__(*args, **kwargs)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next optimizer steps."""
        for group in self.actor.engine.optimizer.param_groups:
            group["lr"] = rate

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def set_optimizer(self, weight_decay: float, betas: tuple[float, float]) -> None:
        """Apply the current settings instead of those in a checkpoint's optimizer."""
        for group in self.actor.engine.optimizer.param_groups:
            group.update(weight_decay=weight_decay, betas=betas)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def parameters(self) -> int:
        """Number of trained parameters over all processes."""
        return sum(each.numel() for each in self.actor.engine.module.parameters() if each.requires_grad)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def forget_server(self) -> None:
        """Forget the vLLM server that this process sent weights to, so that its replacement is looked up."""
        self.rollout.forget_server()
