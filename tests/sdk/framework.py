"""A framework of one class, to test who speaks: an agent with a method of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from lightning_sdk.trace.scope import effective_scope


def role() -> str:
    return effective_scope().role


class Agent:
    """A framework's agent, with a method of every kind; each says who speaks inside it."""

    def __init__(self, name: str | None = "bot", inside: Callable[[], Any] = role) -> None:
        self.name, self.inside = name, inside

    def run(self) -> Any:
        """Doc."""
        return self.inside()

    async def arun(self) -> Any:
        await asyncio.sleep(0)
        return self.inside()

    def steps(self) -> Iterator[Any]:
        yield self.inside()
        yield self.inside()

    async def asteps(self) -> AsyncIterator[Any]:
        yield self.inside()
        await asyncio.sleep(0)
        yield self.inside()

    def lazy(self, kind: str) -> Any:
        return {"value": self.run, "coroutine": self.arun, "steps": self.steps, "asteps": self.asteps}[
            kind
        ].__wrapped__(self)

    def outer(self) -> Any:
        return self.run()

    def failing(self) -> None:
        raise ValueError("no")


METHODS = ("run", "arun", "steps", "asteps", "lazy", "outer", "failing")
