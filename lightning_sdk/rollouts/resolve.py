"""Resolving: what an agent or a reward function finally returns, awaited if it is async, collected if it is an
iterator."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any


async def resolve(value: Any) -> Any:
    """What `value` comes to, on the loop that runs."""
    if isinstance(value, AsyncIterator):
        return _whole([item async for item in value])
    if inspect.isawaitable(value):
        return await resolve(await value)
    return _whole(list(value)) if _is_iterator(value) else value


def resolve_here(value: Any) -> Any:
    """The same in a thread without a loop."""
    if inspect.isawaitable(value) or isinstance(value, AsyncIterator):
        return asyncio.run(resolve(value))
    return _whole(list(value)) if _is_iterator(value) else value


def _is_iterator(value: Any) -> bool:
    """A generator, `map(...)`, or an object of the user's own; a file is an answer as it is."""
    return isinstance(value, Iterator) and not hasattr(value, "fileno")


def _whole(items: list[Any]) -> Any:
    """The answer of a generator: its pieces joined if they are text, else the list."""
    return "".join(items) if items and all(isinstance(item, str) for item in items) else items
