"""A recorder in place of the stream, and a provider in place of the paid API."""

from collections.abc import Iterator

import pytest
from provider import Provider
from recorder import Recorder
from traced import exported, joined, tracer_provider  # noqa: F401 - fixtures

from lightning_sdk import sink


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Everything that this process would stream, in a list."""
    recorder = Recorder()
    sink.connect(recorder)
    yield recorder
    sink.connect(None)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider
