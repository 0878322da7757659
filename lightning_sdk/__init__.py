"""Lightning SDK: train an AI agent that already exists.

    import lightning_sdk as lightning

    @lightning.agent(role="solver", trainable=True)
    def solve(task): ...

    @lightning.reward
    def correct(task, answer): ...

    lightning.init()
    report = lightning.train(solve, tasks="tasks.jsonl", reward=correct, model="spark", steps=40)

Importing this package loads nothing heavy; names that need more are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_sdk import settings
from lightning_sdk.errors import (
    BackendDied,
    DiskError,
    HubError,
    HubGone,
    HubRefused,
    LightningError,
    ModelError,
    NothingToTrain,
    PortInUse,
    PromptError,
    RewardError,
    RolloutsFailed,
    SettingError,
    TaskError,
    UnsupportedVersion,
    Untranslatable,
)
from lightning_sdk.markers.agent import agent
from lightning_sdk.markers.prompt import prompt
from lightning_sdk.markers.reward import Reward, emit_reward, reward
from lightning_sdk.markers.rollout import rollout
from lightning_sdk.settings import Settings

if TYPE_CHECKING:  # loaded on first use below: they need zmq, wrapt and asyncio
    from lightning_sdk.commands.check import Check, check
    from lightning_sdk.commands.gateway import gateway_environment
    from lightning_sdk.commands.report import Report, Score
    from lightning_sdk.commands.rescore import Rescoring, rescore
    from lightning_sdk.commands.shown_run import show
    from lightning_sdk.commands.train import evaluate, train
    from lightning_sdk.session import init, shutdown, status

_LATER = {
    "Check": "commands.check",
    "Report": "commands.report",
    "Rescoring": "commands.rescore",
    "Score": "commands.report",
    "check": "commands.check",
    "evaluate": "commands.train",
    "gateway_environment": "commands.gateway",
    "init": "session",
    "rescore": "commands.rescore",
    "show": "commands.shown_run",
    "shutdown": "session",
    "status": "session",
    "train": "commands.train",
}

__all__ = [
    "BackendDied",
    "Check",
    "DiskError",
    "HubError",
    "HubGone",
    "HubRefused",
    "LightningError",
    "ModelError",
    "NothingToTrain",
    "PortInUse",
    "PromptError",
    "Report",
    "Rescoring",
    "Reward",
    "RewardError",
    "RolloutsFailed",
    "Score",
    "SettingError",
    "Settings",
    "TaskError",
    "UnsupportedVersion",
    "Untranslatable",
    "agent",
    "check",
    "emit_reward",
    "evaluate",
    "gateway_environment",
    "init",
    "prompt",
    "rescore",
    "reward",
    "rollout",
    "settings",
    "show",
    "shutdown",
    "status",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        value = getattr(importlib.import_module(f"lightning_sdk.{_LATER[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What a shell completes: the public names, and not the folders that they come from."""
    return sorted(__all__)
