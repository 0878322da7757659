"""LlamaIndex, 0.14.5 and later: calls belong to an agent of a workflow in the steps that ask its model.

The steps are wrapped instead of `take_step`, because they also make the calls for the answer after the last allowed
turn and for structured output, and because a user's own agent class overrides `take_step`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lightning_sdk.integration import Patches, Turn, current_scope, require_version, use_scope, wrap_agent

#: The name that LlamaIndex gives to every agent that was given none.
_UNNAMED = "Agent"


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `llama_index.core` is imported. Tested with 0.14.25."""
    require_version("llama-index-core", "0.14.5", "0.15", module="llama_index.core")
    from llama_index.core.agent.workflow import AgentWorkflow, BaseWorkflowAgent  # noqa: PLC0415 - only where it is

    for owner in (BaseWorkflowAgent, AgentWorkflow):
        wrap_agent(patches, owner, "run_agent_step", lambda _agent, ctx, ev: _name(ev))
        patches.wrap(owner, "parse_agent_output", _wrap_parse_output)


def _name(event: Any) -> str:
    name: str = event.current_agent_name
    return name if name != _UNNAMED else ""


def _wrap_parse_output(original: Callable[..., Any]) -> Callable[..., Any]:
    """Names calls but makes no span, since a call is rare in this step."""

    async def step(self: Any, ctx: Any, ev: Any) -> Any:
        with use_scope(replace(Turn.of_framework(_name(ev)).scope, span=current_scope().span)):
            return await original(self, ctx, ev)

    return step
