"""Agno, 3.x: calls belong to agents and teams while they run; those of a team's leader have the team's name."""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, bypass_cache, require_version, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `agno.agent` is imported. Tested with 3.1.10."""
    require_version("agno", "3", "4", module="agno")
    from agno.agent import Agent  # noqa: PLC0415 - only where the user has it
    from agno.models.base import Model  # noqa: PLC0415
    from agno.team import Team  # noqa: PLC0415

    def name(speaking: Any, *_args: Any, **_kwargs: Any) -> str | None:
        said: str | None = speaking.name
        return said

    for owner in (Agent, Team):
        for method in ("run", "arun", "continue_run", "acontinue_run"):
            wrap_agent(patches, owner, method, name)
    bypass_cache(
        patches,
        Model,
        "_get_cached_model_response",
        "_save_model_response_to_cache",
        "_save_streaming_responses_to_cache",
    )
