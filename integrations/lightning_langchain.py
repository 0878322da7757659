"""LangChain's caches, which trained calls bypass. `lightning_langgraph` names the roles of its agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sdk.integration import Patches, bypass_cache, needs_engine, require_version


def instrument(patches: Patches) -> None:
    """Wrap the caches; run by `lightning_sdk.init()` once `langchain_core` is imported."""
    require_version("langchain-core", "1.0", "2")
    from langchain_core.language_models import llms  # noqa: PLC0415 - only where the user has it
    from langchain_core.language_models.chat_models import BaseChatModel  # noqa: PLC0415

    bypass_cache(patches, llms, "_resolve_cache")
    for method in ("_generate_with_cache", "_agenerate_with_cache"):
        patches.wrap(BaseChatModel, method, _without_cache)


def _without_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    """A chat model that is told to use no cache; a copy of it, since other threads may use it for other roles."""
    from langchain_core.globals import get_llm_cache  # noqa: PLC0415

    def with_cache(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept = self.cache or (self.cache is None and get_llm_cache() is not None)
        if kept and needs_engine():
            self = self.model_copy(update={"cache": False})
        return original(self, *args, **kwargs)

    return with_cache
