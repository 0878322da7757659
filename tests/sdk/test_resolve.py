"""An answer is what an agent's result comes to, whatever kind of object that is."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lightning_sdk.rollouts.resolve import resolve, resolve_here


class Pieces:
    """An iterator of both kinds that is not a generator."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = list(pieces)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._pieces:
            raise StopIteration
        return self._pieces.pop(0)


class Arriving(Pieces):
    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop(0)


@pytest.mark.parametrize("make", [Pieces, Arriving, lambda *each: filter(None, each)])
def test_iterators_are_collected(make: Any) -> None:
    """Text is joined and anything else is a list, in a thread and on a loop."""
    assert resolve_here(make("a", "b")) == asyncio.run(resolve(make("a", "b"))) == "ab"
    assert resolve_here(make(1, 2)) == asyncio.run(resolve(make(1, 2))) == [1, 2]


def test_other_answers_stay_what_they_are() -> None:
    """Lists, texts and files are answers themselves."""
    file = io.StringIO("a line")
    for answer in ([1, 2], "text", {"a": 1}, file, None):
        assert resolve_here(answer) is answer and asyncio.run(resolve(answer)) is answer
