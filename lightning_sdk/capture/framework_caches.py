"""Caches of frameworks: trained calls bypass them, or every rollout of a task would get the first one's answer.

They are not written to either: what a model said while it was trained must not answer the user's own calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace.scope import effective_scope


def needs_engine() -> bool:
    """Whether a call made here is one of a role that is trained or evaluated, which only the engine may answer."""
    return bool(harmless("asking who speaks", lambda: effective_scope().endpoint() is not None))


def bypass_cache(patches: Patches, owner: Any, *methods: str, instead: Any = None) -> None:
    """Let these methods of a cache do nothing but return `instead` where `needs_engine()`."""

    def with_bypass(original: Callable[..., Any]) -> Callable[..., Any]:
        def look_up(*args: Any, **kwargs: Any) -> Any:
            return instead if needs_engine() else original(*args, **kwargs)

        return look_up

    for method in methods:
        patches.wrap(owner, method, with_bypass)
