"""Launching: a server of one model in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_sdk.settings import Settings
from lightning_vllm import command
from lightning_vllm.card import Card
from lightning_vllm.command import Place
from lightning_vllm.server import Server

Launch = Callable[[Place, Path], Server]


def launcher(settings: Settings, card: Card, name: str) -> Launch:
    """What starts a server of this model, known by `name`, in a place and with its log in a file."""

    def launch(place: Place, log: Path) -> Server:
        return Server(
            log,
            lambda port: command.arguments(settings, card, place, name, port),
            command.environment(settings, card, place),
            lambda key: command.must(place, key),
        )

    return launch
