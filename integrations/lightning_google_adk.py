"""Google ADK, 2.x: calls belong to an agent while its `run_async` or `run_live` runs, however it was reached."""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, require_version, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `google.adk` is imported. Tested with 2.13."""
    require_version("google-adk", "2", "3", module="google.adk")
    from google.adk.agents.base_agent import BaseAgent  # noqa: PLC0415 - only where the user has it

    def name(agent: Any, *_args: Any, **_kwargs: Any) -> str:
        said: str = agent.name
        return said

    for method in ("run_async", "run_live"):
        wrap_agent(patches, BaseAgent, method, name)
