"""A framework that is imported again, as tests and notebooks do, is caught again."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import openai
import pytest

import lightning_sdk as lightning
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder


def take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "openai"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture
def again() -> Iterator[Callable[[], Any]]:
    """Imports openai a second time, which leaves two copies of its classes; afterwards the first one is back."""
    first: dict[str, ModuleType] = {}

    def again() -> Any:
        first.update(take_out())
        return importlib.import_module("openai")

    yield again
    take_out()
    sys.modules |= first


def test_a_rollout_finds_the_second_copy(provider: Provider, recorder: Recorder, again: Callable[[], Any]) -> None:
    """Its calls are recorded, and `shutdown()` puts back what both copies had."""
    lightning.init(integrations={"openai"})
    first, second = openai, again()
    client = second.OpenAI(base_url=provider.url, api_key="k", max_retries=0)
    with lightning.rollout():
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
    assert second.OpenAI is not first.OpenAI and lightning.status()["integrations"] == {"openai": "active"}
    assert [call.meta.status for call in recorder.calls] == ["ok"]
    copies = [library._base_client.SyncAPIClient for library in (first, second)]
    assert all(hasattr(each.request, "__wrapped__") for each in copies)
    lightning.shutdown()
    assert not any(hasattr(each.request, "__wrapped__") for each in copies)


def test_init_and_status_look_again(provider: Provider, recorder: Recorder, again: Callable[[], Any]) -> None:
    """Outside of rollouts a second `init()` is enough."""
    lightning.init(integrations={"openai"})
    client = again().OpenAI(base_url=provider.url, api_key="k", max_retries=0)
    lightning.init()
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
    assert len(recorder.calls) == 1
