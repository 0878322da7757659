"""A recorder in place of the stream, and a provider in place of the paid API."""

from collections.abc import Iterator

import openai
import pytest

import lightning_sdk as lightning
from lightning_sdk.stream import sink
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.traced import exporter, openai_session, tracer_provider  # noqa: F401 - fixtures


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


@pytest.fixture
def engine() -> Iterator[Provider]:
    """A second provider, for the engine that trained calls go to."""
    with Provider() as engine:
        yield engine


@pytest.fixture
def client(provider: Provider, recorder: Recorder) -> Iterator[openai.OpenAI]:
    """A client of the provider, in a process that records."""
    lightning.init()
    with openai.OpenAI(base_url=provider.url, api_key="users-key") as client:
        yield client
    lightning.shutdown()
