"""A front with one server, and one with two."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.front.fronted import Fronted


@pytest.fixture
def two() -> Iterator[Fronted]:
    """A front with two servers."""
    with ExitStack() as stack:
        yield Fronted(stack, 2, 20.0)


@pytest.fixture
def one() -> Iterator[Fronted]:
    """A front with one server, and little patience."""
    with ExitStack() as stack:
        yield Fronted(stack, 1, 0.6)
