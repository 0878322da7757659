"""Who speaks in LangChain and LangGraph: the agent's or the node's name, as LangChain's own context has it.

LangChain carries its config through threads, tasks and nested graphs by itself. All that is wrapped is its cache, which
trained calls pass by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sdk.caches import bypass, is_passed_by
from lightning_sdk.patches import Patches
from lightning_sdk.speaking import require, speaker

#: What `create_agent` writes into the metadata of its runs, and the nodes that it makes; they say nothing of a role.
_CREATED = "langchain_create_agent"
_CREATED_NODES = ("model", "tools")


def instrument(patches: Patches) -> None:
    """Ask LangChain at each call; run by `lightning_sdk.init()` once `langchain_core` is imported."""
    require("langchain-core", "1.0", "2")
    from langchain_core.language_models import llms  # noqa: PLC0415
    from langchain_core.language_models.chat_models import BaseChatModel  # noqa: PLC0415
    from langchain_core.runnables.config import var_child_runnable_config  # noqa: PLC0415 - only where it is used

    speaker(patches, lambda: _name((var_child_runnable_config.get() or {}).get("metadata") or {}))
    bypass(patches, llms, "_resolve_cache")
    for method in ("_generate_with_cache", "_agenerate_with_cache"):
        patches.wrap(BaseChatModel, method, _uncached)


def _uncached(original: Callable[..., Any]) -> Callable[..., Any]:
    """A chat model that is told to use no cache; a copy of it, since other threads may use it for other roles."""
    from langchain_core.globals import get_llm_cache  # noqa: PLC0415

    def with_cache(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept = self.cache or (self.cache is None and get_llm_cache() is not None)
        if kept and is_passed_by():
            self = self.model_copy(update={"cache": False})
        return original(self, *args, **kwargs)

    return with_cache


def _name(metadata: dict[str, Any]) -> str:
    """The nearest name: the node's, or the agent's whose inner node it is, or that of the node around that agent."""
    node = metadata.get("langgraph_node") or ""
    if metadata.get("ls_integration") != _CREATED:
        return str(node or metadata.get("lc_agent_name") or "")
    if not _created(node):
        return str(node)
    if agent := metadata.get("lc_agent_name"):
        return str(agent)
    # create_agent without a name: "research:4f1c...|model:91d0..." is a node `research` that runs it.
    path = str(metadata.get("langgraph_checkpoint_ns") or "").split("|")
    nodes = [step.split(":")[0] for step in reversed(path)]
    return next((outer for outer in nodes if outer and not _created(outer)), "")


def _created(node: str) -> bool:
    return node in _CREATED_NODES or "." in node or not node
