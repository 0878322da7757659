"""One run of a few steps with spark, whose stored rollouts all tests here use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stored.workplace import Workplace


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Where a run called 'base' is stored: 2 steps, with `first` and a number given inside. Nobody writes into it."""
    place = Workplace(tmp_path_factory.mktemp("stored"))
    place.train("base", "--steps", "2")
    return place


@pytest.fixture
def copies(place: Workplace, tmp_path: Path) -> Callable[[], Path]:
    """Copies of the stored run that may be written into."""
    made: list[Path] = []

    def copy() -> Path:
        made.append(Path(shutil.copytree(place.runs / "base", tmp_path / f"copy-{len(made)}")))
        return made[-1]

    return copy
