"""What all tests share: an isolated home for state, and a clean process after each test."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import lightning_sdk
from lightning_sdk import markers
from lightning_sdk.stream import sink

# A busy machine must not fail a test: a property is searched for as many examples as ever, however long that takes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# A shell without job control lets what it runs in the background ignore Ctrl-C, and all that this starts with it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Folders of tests that start whole trainings.
LONG = {"docs", "gateway", "hub", "learner", "stored", "training"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files go first: begun last, one of them would keep one worker busy while the other has nothing."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def isolate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test finds another's hub, roles or session, or the user's own."""
    monkeypatch.setenv("LIGHTNING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LIGHTNING_HUB", raising=False)
    monkeypatch.delenv("LIGHTNING_KEY", raising=False)
    monkeypatch.delenv("LIGHTNING_PROMPTS", raising=False)
    monkeypatch.setenv("LIGHTNING_DASHBOARD", "off")  # a process for each of hundreds of trainings
    yield
    lightning_sdk.shutdown(0.5)
    sink.connect(None)
    sink._said.clear()
    markers.agent.declared.clear()
    markers.prompt.marked.clear()
    markers.reward.marked.clear()
