"""A training that is logged to the real trackers, offline, and goes on later: what they kept is read with their own
readers.

    make test-trackers                                          # all, in .venvs/trackers

There is no torch here: runs have the backend of `tests/hub/bandit_backend.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.commands.report import Report
from lightning_sdk.results.run_files import EVALUATIONS, STEPS, read_lines
from tests.hub import bandit_backend

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
TASKS = [{"question": f"which arm, {number}?"} for number in range(12)]
SMALL: dict[str, Any] = {
    "backend": "bandit",
    "quiet": True,
    "rollouts.tasks_per_step": 2,
    "rollouts.group_size": 4,
    "evaluation.tasks": 4,
    "failure.flat_steps": 0,
}
#: Tracker -> what `log_to` is given.
LOG_TO = {"tensorboard": "tensorboard:boards", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio:agents"}


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    messages: list[Any] = [{"role": "user", "content": task["question"]}]
    return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


def reward(task: dict[str, Any], answer: str) -> float:
    return float(answer == "3")


@dataclass(frozen=True)
class TrackedTraining:
    """Two steps, and later a third one, logged to every tracker."""

    place: Path
    """The working directory."""
    report: Report

    @property
    def run(self) -> Path:
        return self.place / "runs" / "bandit"

    def numbers(self) -> dict[str, dict[int, float]]:
        """Name -> step -> value, as the run's own files have them."""
        found: dict[str, dict[int, float]] = {}
        for line in read_lines(self.run / STEPS).whole:
            for name, value in line.items():
                if name != "step" and value is not None:
                    found.setdefault(f"train/{name}", {})[line["step"]] = value
        for line in read_lines(self.run / EVALUATIONS).whole:
            for name in ("mean", "low", "high"):
                if line[name] is not None:
                    found.setdefault(f"held_out/{name}", {})[line["step"]] = line[name]
        return found

    def place_of(self, tracker: str) -> dict[str, str]:
        """What trackers.json says of it."""
        found: dict[str, str] = json.loads((self.run / "trackers.json").read_text())[tracker]
        return found


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackedTraining]:
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("training")
        isolate(place, patch)
        lightning.train(solve, TASKS, reward, name="bandit", steps=2, log_to=[*LOG_TO.values()], **SMALL)
        report = lightning.train(solve, TASKS, reward, resume="bandit", steps=3, log_to=[*LOG_TO.values()], quiet=True)
        yield TrackedTraining(place, report)
    lightning.shutdown(0.5)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Trains in a folder of the test's own, which is the working directory."""
    isolate(tmp_path, monkeypatch)

    def train(**more: Any) -> Report:
        return lightning.train(solve, TASKS, reward, name="bandit", steps=1, **{**SMALL, **more})

    return train


def isolate(place: Path, patch: pytest.MonkeyPatch) -> None:
    """A working directory in which the bandit backend is installed, and every tracker keeps what it is told."""
    bandit_backend.install(place / "site")
    patch.chdir(place)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(place / "site"), os.environ.get("PYTHONPATH", "")]))
    for name in list(os.environ):
        if name.startswith(("LIGHTNING_", "WANDB_", "MLFLOW_", "TRACKIO_", "TENSORBOARD_")):
            patch.delenv(name)
    for name, value in (
        ("HOME", str(place / "home")),
        ("LIGHTNING_HOME", str(place / "home")),
        ("WANDB_MODE", "offline"),
        ("WANDB_PROJECT", "tests"),
        ("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db"),
        ("TRACKIO_DIR", str(place / "trackio")),
    ):
        patch.setenv(name, value)
