"""The agent's own provider instead of a backend: nothing is served, redirected or trained; calls are only recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_hub.backend import BackendSpec, Batch, Endpoint, Update
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.judging import is_judging
from lightning_sdk.errors import SettingError
from lightning_sdk.settings import Settings
from lightning_sdk.settings.provider import PROVIDER
from lightning_sdk.trace.call import Call


class Provider:
    """Wherever the agent's calls go without us, as a `Backend` that cannot be trained."""

    endpoint: Endpoint | None = None

    def facts(self) -> dict[str, object]:
        return {}

    def update(self, batch: Batch) -> Update:
        raise untrainable()

    def save(self, folder: Path) -> None:
        raise untrainable()

    def load(self, folder: Path) -> int:
        raise untrainable()

    def check(self) -> None:
        """Nothing of ours runs that could have died."""

    def close(self) -> None:
        """Nothing was started."""


def untrainable() -> SettingError:
    """The error for a training that names it as its backend."""
    return SettingError(
        f"setting backend={PROVIDER!r}: an agent at its own provider is checked and evaluated (--provider), not "
        "trained; name the model to train: --model, and leave backend out"
    )


def _start(settings: Settings, folder: Path) -> Provider:
    return Provider()


SPEC = BackendSpec(name=PROVIDER, honours=frozenset({"model"}), start=_start)


def mark_trainable(rollouts: Sequence[Rollout], roles: Sequence[str], declared: Mapping[str, bool]) -> list[Rollout]:
    """Rollouts whose calls say that they are of a role to train, wherever they went. `roles`: those of the settings."""
    wanted = frozenset(roles or (role for role, trained in declared.items() if trained))
    return [replace(each, calls=tuple(_marked_calls(each, wanted))) for each in rollouts]


def _marked_calls(rollout: Rollout, wanted: frozenset[str]) -> Iterator[Call]:
    for call in rollout.calls:
        trainable = call.meta.role in wanted and not is_judging(call, rollout)
        yield replace(call, meta=call.meta._replace(trainable=trainable))
