"""AutoGen AgentChat: which agent a call belongs to, and which rollout a message belongs to.

Each run of an agent is a turn. What a team does between turns, such as choosing the next speaker, belongs to no agent.
A runtime handles each message in its own task, in the context that `runtime.start()` was called in: one that was
started long before a rollout knows nothing about it. So a message carries the scope in which it was sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from lightning_sdk.integration import (
    Patches,
    Scope,
    bypass_cache,
    current_scope,
    require_version,
    use_scope,
    wrap_agent,
)

_SCOPE = "_lightning_scope"

#: The scope that the message now being handled came in.
_handled: ContextVar[Scope] = ContextVar("lightning_autogen_handled", default=Scope())  # noqa: B039 - frozen


def instrument(patches: Patches) -> None:
    """Wrap agents and runtime; run by `lightning_sdk.init()` once `autogen_agentchat` is imported."""
    require_version("autogen-agentchat", "0.7", "0.8")
    from autogen_agentchat.agents import AssistantAgent, BaseChatAgent  # noqa: PLC0415 - only where the user has it
    from autogen_agentchat.teams._group_chat._chat_agent_container import ChatAgentContainer  # noqa: PLC0415
    from autogen_core import SingleThreadedAgentRuntime  # noqa: PLC0415
    from autogen_core import _single_threaded_agent_runtime as runtime  # noqa: PLC0415

    # On its own, in a team (whatever class of agent it is), and called directly.
    for owner, method in (
        (BaseChatAgent, "run"),
        (BaseChatAgent, "run_stream"),
        (ChatAgentContainer, "handle_request"),
        (AssistantAgent, "on_messages_stream"),
    ):
        wrap_agent(patches, owner, method, _name)
    for envelope, process in (
        (runtime.SendMessageEnvelope, "_process_send"),
        (runtime.PublishMessageEnvelope, "_process_publish"),
    ):
        patches.wrap(envelope, "__init__", _wrap_envelope)
        patches.wrap(SingleThreadedAgentRuntime, process, _wrap_process)
    with contextlib.suppress(ImportError):  # the cache is in a separate distribution
        from autogen_ext.models.cache import ChatCompletionCache  # noqa: PLC0415

        # Nothing is found, and what is then kept is kept under a key that nobody asks for.
        bypass_cache(patches, ChatCompletionCache, "_check_cache", instead=(None, "lightning: trained"))


def _name(agent: Any, *_args: object, **_kwargs: object) -> str | None:
    if not hasattr(agent, "_message_buffer"):
        return str(agent.name)
    inner = agent._agent  # a container, of an agent or of a whole team, which has agents of its own
    return str(inner.name) if hasattr(inner, "on_messages_stream") else None


def _wrap_envelope(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **fields: Any) -> None:  # noqa: N807 - what it replaces
        original(self, *args, **fields)
        scope = current_scope()
        # What an agent of a team says in its turn is heard outside of that turn.
        said = scope.agent and getattr(self, "sender", None) is not None
        setattr(self, _SCOPE, _handled.get() if said else scope)

    return __init__


def _wrap_process(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def process(self: Any, message_envelope: Any) -> None:
        scope = getattr(message_envelope, _SCOPE, None)
        if scope is None:  # sent before `init()`
            return await original(self, message_envelope)
        token = _handled.set(scope)
        try:
            with use_scope(scope):
                return await original(self, message_envelope)
        finally:
            _handled.reset(token)

    return process
