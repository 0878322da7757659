"""The metrics of a training step: what its rollouts, its batch and its update show."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_hub.backend import Update
from lightning_hub.credit.batch import TrainingBatch
from lightning_hub.rollouts.rounds import Round
from lightning_hub.trajectories.rewards import reward_extremes
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status


def step_metrics(
    round_: Round,
    batch: TrainingBatch,
    update: Update,
    seconds: Mapping[str, float],
    version: int,
    settings: Settings,
) -> dict[str, float]:
    """Name -> value. `version`: the model's before the update."""
    rollouts = round_.rollouts
    calls = [call for each in rollouts for call in each.calls if call.meta.trainable]
    tokens = sum(call.output_tokens for call in calls)
    measured = {**update.metrics, **batch.metrics, **seconds, **reward_extremes(rollouts, settings)}
    statuses = {f"rollouts_{status}": sum(each.status == status for each in rollouts) for status in Status}
    generated = {
        "calls": len(calls),
        "tokens_generated": tokens,
        "tokens_per_second": tokens / round_.seconds if round_.seconds else 0.0,
        "staleness": max((version - row.version for row in batch.rows if row.version >= 0), default=0),
    }
    return {**measured, **statuses, **round_.counts(), **generated}


def running_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """Role -> the running mean of its rewards, as the metrics of a step have it."""
    found = {}
    for name, mean in metrics.items():
        what, _, role = name.partition("/")
        if what == "running_mean":
            found["" if role == "none" else role] = mean
    return found
