"""Fixtures: hub processes that end with the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import bandit_backend
from tests.hub.hubs import Client, Hub
from tests.hub.otlp_collector import Collector
from tests.hub.runners import Runner


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Hub]]:
    """Start a hub on a folder of this test; stopped at its end."""
    hubs: list[Hub] = []

    def starter(name: str = "run", **config: Any) -> Hub:
        hubs.append(Hub(tmp_path / name, **config))
        return hubs[-1]

    yield starter
    for hub in hubs:
        hub.kill()  # faster than a graceful end, which has separate tests


@pytest.fixture
def hub(start: Callable[..., Hub]) -> Hub:
    return start()


@pytest.fixture(scope="session")
def busy_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that many tests use, each with its own clients."""
    hub = Hub(tmp_path_factory.mktemp("busy") / "run")
    yield hub
    hub.kill()


@pytest.fixture
def guest(busy_hub: Hub) -> Iterator[Client]:
    with Client(busy_hub) as client:
        yield client


@pytest.fixture
def client(hub: Hub) -> Iterator[Client]:
    with Client(hub) as client:
        yield client


@pytest.fixture(scope="session")
def bandit_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the bandit backend as a package manager would install it, for a hub's PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")
    bandit_backend.install(folder)
    # The hub needs no torch: whatever imports it there fails.
    (folder / "torch.py").write_text("raise ImportError('torch is not installed here')\n")
    return folder


@pytest.fixture
def train(start: Callable[..., Hub], bandit_site: Path) -> Iterator[Callable[..., Runner]]:
    """A runner on a new hub in whose environment the bandit backend is installed."""
    runners: list[Runner] = []

    def starter(**config: Any) -> Runner:
        hub = start(path=bandit_site, **config)
        runners.append(Runner(hub))
        return runners[-1]

    yield starter
    for runner in runners:
        runner.close()


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory, bandit_site: Path) -> Iterator[Hub]:
    """One hub for the trainings that fail before their first step: it takes the next one."""
    hub = Hub(tmp_path_factory.mktemp("shared") / "run", path=bandit_site)
    yield hub
    hub.stop()


@pytest.fixture
def runner(shared_hub: Hub) -> Iterator[Runner]:
    runner = Runner(shared_hub)
    yield runner
    runner.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names, for every hub of the test."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.close()
