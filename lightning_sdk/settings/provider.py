"""The agent's own provider: what is set for a check or an evaluation that sends its calls where they always go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sdk.errors import SettingError

#: Name of the backend that serves no model; in the settings and the report of such a run, of the model too.
PROVIDER = "provider"
#: Name of the backend that tunes prompts. If no model is named for it, it serves none.
PROMPTS = "prompts"
#: Settings of an engine's sampling, which the agent's own requests say instead.
_SAMPLING = ("sampling", "evaluation.temperature")


def with_own_provider(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given; if prompts are tuned and no model is named, the agent's own provider is it."""
    leaves = given.get("backend") == PROMPTS and not {"model", "engine"} & set(given)
    return {**given, **({"model": PROVIDER} if leaves else {})}


def provider_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, for an agent at its own provider. SettingError for those of a model of ours."""
    for name, value in given.items():
        if name in {"model", "backend", "engine"}:
            raise SettingError(
                f"{name}={value!r}: with --provider (provider=True) no model is loaded for the agent; "
                f"leave out {name}, or --provider"
            )
        if name.startswith(_SAMPLING):
            raise SettingError(
                f"setting {name}={value!r}: with --provider the agent's requests are sent unchanged; set this in the "
                "agent, or leave --provider out"
            )
    return {**given, "backend": PROVIDER, "model": PROVIDER}
