"""Strands Agents, 1.x: every way to call an agent goes through `stream_async`, but for the older structured output."""

from __future__ import annotations

from typing import Any

from lightning_sdk.capture.agent_names import require, speaks
from lightning_sdk.capture.patches import Patches

#: The name that Strands gives to every agent that was given none.
_UNNAMED = "Strands Agents"


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `strands` is imported. Tested with 1.62."""
    require("strands-agents", "1.31", "2", module="strands")
    from strands.agent.agent import Agent  # noqa: PLC0415 - only where the user has it

    def name(agent: Any, *_args: Any, **_kwargs: Any) -> str | None:
        return agent.name if agent.name != _UNNAMED else None

    for method in ("stream_async", "structured_output_async"):
        speaks(patches, Agent, method, name)
