"""The start of the backend: a model of the run's own for the roles that are tuned, or none, which leaves their calls
where the agent sends them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lightning_hub.backend import Backend, BackendSpec
from lightning_hub.rollouts.plan import find_backend
from lightning_hub.rollouts.provider import Provider
from lightning_prompts.reflecting_model import ENGINE
from lightning_prompts.refusal import refuse_without_effect
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Prompts, Settings
from lightning_sdk.settings.provider import PROVIDER


class OwnProvider(Provider):
    """The agent's own provider, whose model nobody changes."""


def start(settings: Settings, folder: Path) -> Backend:
    if settings.model == PROVIDER:
        return OwnProvider()
    spec, served = _serving(settings)
    return spec.start(served, folder)


def refuse(settings: Settings) -> None:
    """SettingError for settings that do nothing, or that the model's backend refuses."""
    refuse_without_effect(settings)
    if settings.model != PROVIDER:
        spec, served = _serving(settings)
        spec.refuse(served)
    elif settings.prompts.reflect_with == ENGINE:
        raise SettingError(
            f"setting prompts.reflect_with={ENGINE!r}: this run has no engine, since its calls go to the agent's own "
            "provider; name a model for the agent's roles (--model), or another reflecting model"
        )


def _serving(settings: Settings) -> tuple[BackendSpec, Settings]:
    """The backend that serves the model, which is not trained, and its settings."""
    served = replace(settings, backend=Settings().backend, prompts=Prompts())
    return find_backend(served), served
