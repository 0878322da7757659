"""LangGraph, on which LangChain's agents run: calls belong to the node, or to the agent that the node is part of.

LangChain itself carries its config, which names the node, through threads, tasks and nested graphs. It does not
distinguish a user's node from one that an agent consists of (`agent`, `model`, `tools`), so the running graph is kept
in a context variable, which nodes inherit. An agent is recognised by its nodes and not by how it was made: it may be
older than `init()`, and other libraries make such agents too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lightning_sdk.integration import Patches, add_agent_source, harmless, require_version

#: The modules whose functions are the nodes of ready-made agents: `create_react_agent`'s and `create_agent`'s. Not
#: `ToolNode`'s, which graphs of the user's have too.
_AGENTS = ("langgraph.prebuilt.chat_agent_executor", "langchain.agents.")
#: The name that LangGraph gives to every graph that was given none.
_UNNAMED = "LangGraph"

#: The name of the agent whose nodes run now, '' if it has none; None where the nodes are the user's.
_agent: ContextVar[str | None] = ContextVar("lightning_langgraph_agent", default=None)


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `langgraph.pregel` is imported. Tested with 1.0 and 1.2."""
    require_version("langgraph", "1.0", "2")
    from langchain_core.runnables.config import ensure_config, var_child_runnable_config  # noqa: PLC0415 - only here
    from langgraph.pregel import Pregel  # noqa: PLC0415

    def begin(graph: Any, _input: Any = None, config: Any = None, **_: Any) -> str | None:
        if not _is_agent(graph):
            return None
        name = graph.name if graph.name != _UNNAMED else ""
        return str(name or _name(ensure_config(config)))

    add_agent_source(patches, lambda: _name(var_child_runnable_config.get() or {}))
    patches.wrap(Pregel, "stream", lambda original: _wrap_stream(original, begin))
    patches.wrap(Pregel, "astream", lambda original: _wrap_stream_async(original, begin))


def _name(config: Any) -> str:
    """Whose call one made with this config is: of the agent under way, or of the node."""
    node = (config.get("metadata") or {}).get("langgraph_node") or ""
    agent = _agent.get()
    return str(node) if agent is None or not node else agent


def _is_agent(graph: Any) -> bool:
    nodes = getattr(getattr(graph, "builder", None), "nodes", None) or {}
    functions = (
        getattr(node.runnable, "func", None) or getattr(node.runnable, "afunc", None)
        for node in nodes.values()
        if hasattr(node, "runnable")
    )
    return any(str(getattr(function, "__module__", "")).startswith(_AGENTS) for function in functions)


@contextmanager
def _under_way(agent: str | None) -> Iterator[None]:
    token = _agent.set(agent)
    try:
        yield
    finally:
        _agent.reset(token)


def _wrap_stream(original: Callable[..., Iterator[Any]], begin: Callable[..., str | None]) -> Callable[..., Any]:
    def stream(self: Any, *args: Any, **options: Any) -> Iterator[Any]:
        agent = harmless("looking at a graph", lambda: begin(self, *args, **options))
        steps = original(self, *args, **options)
        try:
            while True:
                try:
                    with _under_way(agent):
                        value = next(steps)
                except StopIteration:
                    return
                yield value
        finally:
            with _under_way(agent):
                steps.close()  # type: ignore[attr-defined]

    return stream


def _wrap_stream_async(
    original: Callable[..., AsyncIterator[Any]], begin: Callable[..., str | None]
) -> Callable[..., Any]:
    async def astream(self: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
        agent = harmless("looking at a graph", lambda: begin(self, *args, **options))
        steps = original(self, *args, **options)
        try:
            while True:
                try:
                    with _under_way(agent):
                        value = await anext(steps)
                except StopAsyncIteration:
                    return
                yield value
        finally:
            with _under_way(agent):
                await steps.aclose()  # type: ignore[attr-defined]

    return astream
