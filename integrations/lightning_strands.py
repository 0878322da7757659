"""Strands Agents, 1.x: every way to call an agent goes through `stream_async`, except the older structured output."""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, require_version, wrap_agent

#: The name that Strands gives to every agent that was given none.
_UNNAMED = "Strands Agents"


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `strands` is imported. Tested with 1.62."""
    require_version("strands-agents", "1.31", "2", module="strands")
    from strands.agent.agent import Agent  # noqa: PLC0415 - only where the user has it

    def name(agent: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return agent.name if agent.name != _UNNAMED else None

    for method in ("stream_async", "structured_output_async"):
        wrap_agent(patches, Agent, method, name)
