"""Launching a server of one model in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_sdk.settings import Settings
from lightning_vllm import command
from lightning_vllm.command import ServerPlacement
from lightning_vllm.model_info import ModelInfo
from lightning_vllm.server import VllmServer

Launch = Callable[[ServerPlacement, Path], VllmServer]


def launcher(settings: Settings, info: ModelInfo, name: str) -> Launch:
    """A function that starts a server of this model, served as `name`, in a given place and with a given log file."""

    def launch(place: ServerPlacement, log: Path) -> VllmServer:
        return VllmServer(
            log,
            lambda port: command.arguments(settings, info, place, name, port),
            command.environment(settings, info, place),
            lambda key: command.required_environment(place, key),
        )

    return launch
