"""Microsoft Agent Framework, 1.x: calls belong to an agent while its `run` runs, and in each step of its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sdk.integration import Patches, Turn, harmless, require_version, use_scope, wrap_in_turn


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `agent_framework` is imported. Tested with 1.23."""
    require_version("agent-framework-core", "1.17", "2", module="agent_framework")
    from agent_framework import RawAgent  # noqa: PLC0415 - only where the user has it

    patches.wrap(RawAgent, "run", _wrap_run)
    patches.names_agents = True


def _turn(agent: Any, *_args: Any, **_kwargs: Any) -> Turn:
    return Turn.of_framework(harmless("naming an agent", lambda: agent.name) or "")


def _wrap_run(original: Callable[..., Any]) -> Callable[..., Any]:
    awaited = wrap_in_turn(original, _turn)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("stream"):
            return awaited(self, *args, **kwargs)
        turn = _turn(self)
        try:
            with use_scope(turn.scope):
                stream = original(self, *args, **kwargs)
        except BaseException as error:
            turn.close(error)
            raise
        # A stream of the framework's own class, which nothing has run of yet: it offers to enter a context around
        # each step and to tell when it has ended.
        stream.with_pull_context_manager(lambda: use_scope(turn.scope))
        stream.with_cleanup_hook(lambda: turn.close(stream._stream_error))
        return stream

    return run
