"""Google ADK, 2.x: every agent, however it is reached, speaks while its `run_async` or `run_live` runs."""

from __future__ import annotations

from typing import Any

from lightning_sdk.capture.agent_names import require, speaks
from lightning_sdk.capture.patches import Patches


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `google.adk` is imported. Tested with 2.13."""
    require("google-adk", "2", "3", module="google.adk")
    from google.adk.agents.base_agent import BaseAgent  # noqa: PLC0415 - only where the user has it

    def name(agent: Any, *_args: Any, **_kwargs: Any) -> str:
        said: str = agent.name
        return said

    for method in ("run_async", "run_live"):
        speaks(patches, BaseAgent, method, name)
