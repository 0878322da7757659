"""smolagents, 1.x: calls belong to an agent while its `run` runs, streamed or not; a managed agent has its own name."""

from __future__ import annotations

from lightning_sdk.integration import Patches, require_version, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `smolagents` is imported. Tested with 1.26."""
    require_version("smolagents", "1.20", "2", module="smolagents")
    from smolagents import MultiStepAgent  # noqa: PLC0415 - only where the user has it

    wrap_agent(patches, MultiStepAgent, "run", lambda agent, *_args, **_kwargs: agent.name)
