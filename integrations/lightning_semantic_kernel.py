"""Semantic Kernel, 1.x: calls of chat completion and Responses agents get the name that the agent was given."""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, require_version, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `semantic_kernel.agents` is imported. Tested with 1.45."""
    require_version("semantic-kernel", "1.30", "2", module="semantic_kernel")
    from semantic_kernel.agents import ChatCompletionAgent, OpenAIResponsesAgent  # noqa: PLC0415 - only where it is

    def name(agent: Any, *_args: Any, **_kwargs: Any) -> str | None:
        # An agent without a name gets a random one, which would make a new role of every agent ever built.
        return agent.name if "name" in agent.model_fields_set else None

    for owner in (ChatCompletionAgent, OpenAIResponsesAgent):
        for method in ("get_response", "invoke", "invoke_stream"):
            wrap_agent(patches, owner, method, name)
