"""The agent's own provider: what is set for a check or an evaluation that sends its calls where they always go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sdk.errors import SettingError

#: Name of the backend that serves no model; in the settings and the report of such a run, of the model too.
PROVIDER = "provider"
#: Backends that leave sampling to the agent's own requests, so that a task can be repeated without a temperature.
SAMPLES_ITSELF = frozenset({PROVIDER, "prompts"})
#: Settings of an engine's sampling, which the agent's own requests say instead.
_SAMPLING = ("sampling", "evaluation.temperature")


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
