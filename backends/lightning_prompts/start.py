"""The start of the backend, which serves nothing: the agent's calls go where the agent sends them."""

from __future__ import annotations

from pathlib import Path

from lightning_hub.rollouts.provider import Provider
from lightning_sdk.settings import Settings


class OwnProvider(Provider):
    """The agent's own provider, whose model nobody changes."""


def start(settings: Settings, folder: Path) -> OwnProvider:
    return OwnProvider()
