"""Settings of a training run: `Settings`, and the groups that it is made of.

lightning.train(solve, tasks="tasks.jsonl", optimizer=lightning.settings.Optimizer(learning_rate=1e-5))
"""

from __future__ import annotations

from lightning_sdk.settings.groups import (
    Algorithm,
    Cluster,
    Credit,
    Divergence,
    Evaluation,
    Export,
    Failure,
    Importance,
    Length,
    Lora,
    Optimizer,
    Rollouts,
    Sampling,
    Serving,
    Stored,
    Value,
)
from lightning_sdk.settings.phases import TrainingPhases
from lightning_sdk.settings.prompts import Prompts
from lightning_sdk.settings.settings import Settings

__all__ = [
    "Algorithm",
    "Cluster",
    "Credit",
    "Divergence",
    "Evaluation",
    "Export",
    "Failure",
    "Importance",
    "Length",
    "Lora",
    "Optimizer",
    "Prompts",
    "Rollouts",
    "Sampling",
    "Serving",
    "Settings",
    "Stored",
    "TrainingPhases",
    "Value",
]


def __dir__() -> list[str]:
    """What a shell completes: the public names, and not the modules that they come from."""
    return sorted(__all__)
