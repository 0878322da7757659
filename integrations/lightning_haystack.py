"""Haystack, 3.x: the role of a call is the name of the pipeline component that makes it.

Agents themselves have no names. One that runs outside a pipeline keeps the role of its caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lightning_sdk.integration import Patches, Scope, Turn, current_scope, require_version, use_scope


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `haystack` is imported. Tested with 3.4."""
    require_version("haystack-ai", "3", "4", module="haystack")
    from haystack import Pipeline  # noqa: PLC0415 - only where the user has it

    patches.wrap(Pipeline, "_run_component", _wrap_run)
    patches.wrap(Pipeline, "_run_component_async", _wrap_run_async)
    patches.names_agents = True


def _component_scope(component: str) -> Scope:
    """The scope of a component. It has no span, since most components are not agents."""
    return replace(Turn.of_framework(component).scope, span=current_scope().span)


def _wrap_run(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(component_name: str, *args: Any, **kwargs: Any) -> Any:
        with use_scope(_component_scope(component_name)):
            return original(component_name, *args, **kwargs)

    return run


def _wrap_run_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def run(component_name: str, *args: Any, **kwargs: Any) -> Any:
        with use_scope(_component_scope(component_name)):
            return await original(component_name, *args, **kwargs)

    return run
