"""A recorder in place of the stream, a provider in place of the paid API, and gateways that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightning_gateway.gateway import Gateway
from lightning_sdk.stream import sink
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own environment reaches a test."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Everything that this process would stream, in a list."""
    recorder = Recorder()
    sink.connect(recorder)
    yield recorder
    sink.connect(None)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Provider]:
    """One server for many tests: it takes half a second to stop."""
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(shared_server: Provider) -> Provider:
    shared_server.requests.clear()
    shared_server.fail.clear()
    return shared_server


@pytest.fixture
def start() -> Iterator[Callable[..., Gateway]]:
    """Start a gateway; closed at the test's end."""
    gateways: list[Gateway] = []

    def starter(upstream: str | None = None, **settings: Any) -> Gateway:
        gateways.append(Gateway(upstream, **settings))
        return gateways[-1]

    yield starter
    for gateway in gateways:
        gateway.close()


@pytest.fixture
def gateway(start: Callable[..., Gateway], provider: Provider) -> Gateway:
    """A gateway in front of the provider."""
    return start(provider.url)
