"""A run that was really trained, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk import cli
from tests.dashboard.trained import start_training

Print = Callable[..., str]


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with one of three steps of the embedded backend, called `solve`."""
    folder = tmp_path_factory.mktemp("trained")
    training = start_training(folder, steps=3)
    output, _ = training.communicate(timeout=400)
    assert training.returncode == 0, output
    return folder / "runs"


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Print:
    """What a command line prints into a pipe; it has to succeed."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers set it

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        status = cli.main([str(each) for each in arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def show_json(show: Print) -> Callable[..., Any]:
    """What it prints for scripts."""
    return lambda *arguments: json.loads(show(*arguments, "--json"))
