"""A tiny real model with its tokenizer, and one running backend for all tests that only talk to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_embedded import backend
from lightning_process.child import Child
from lightning_sdk.settings import Settings
from tests.learner.tinymodel import SETTINGS, save_tiny


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny products are faster on one thread, and two busy cores stay usable."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama with 2 layers of width 32 and a tokenizer of 260 ids, in Hugging Face format."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def running(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """The backend's process, serving the tiny model."""
    settings = Settings.from_dict({**SETTINGS, "model": str(tiny)})
    process = backend.start(settings, tmp_path_factory.mktemp("run"))
    assert isinstance(process, Child)
    yield process
    process.close()
