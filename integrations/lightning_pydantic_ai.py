"""PydanticAI, 2.x: its own context variable says which agent asks the model, and a stream knows its agent.

The agent's methods are not wrapped: an agent without a name takes that of the variable it is assigned to, which it
finds in the frame that calls it, and a wrapper in between would be that frame.
"""

from __future__ import annotations

from typing import Any

from lightning_sdk.integration import Patches, add_agent_source, require_version, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `pydantic_ai` is imported. Tested with 2.31 and 2.68."""
    require_version("pydantic-ai-slim", "2.31", "3", module="pydantic_ai")
    from pydantic_ai._run_context import get_current_run_context  # noqa: PLC0415 - only where the user has it
    from pydantic_ai.models._continuation import _ContinuationStreamedResponse  # noqa: PLC0415

    def name(context: Any) -> str | None:
        return context.agent.name if context is not None and context.agent is not None else None

    add_agent_source(patches, lambda: name(get_current_run_context()))
    # A streamed request is opened by its reader, in a task where that variable is not set.
    wrap_agent(patches, _ContinuationStreamedResponse, "_get_event_iterator", lambda stream: name(stream.run_context))
