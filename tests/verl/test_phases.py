"""Weights and prompts in one run on VERL: its real loop on Ray, with a real vLLM, on this machine's CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.prompts.adding_runs import RUINOUS, assert_restored, finish, lines, prepare, start
from tests.prompts.model_servers import ModelServer

pytestmark = pytest.mark.timeout(900)


def test_weights_and_prompts_take_turns(tmp_path: Path) -> None:
    """The phase of weights ruins the model and is undone: VERL goes on with the weights and the optimizer that it had
    before, and the held-out score is that of the beginning."""
    folder = prepare(tmp_path / "project")
    with ModelServer(lambda _: "I have no idea.") as reflector:
        options = ("--tune", "prompts", "--steps", "5", "--reflect-with", reflector.url)
        placed = ("--backend", "verl", "--backend-python", sys.executable)
        finish(start(folder, "in_form", RUINOUS, *options, *placed), seconds=800)
    report = assert_restored(folder / "runs/run")
    assert [each["kind"] for each in report["phases"][:3]] == ["prompts", "weights", "prompts"]
    of_weights = [each for each in report["phases"] if each["kind"] == "weights"]
    updates = [line["step"] for line in lines(folder / "runs/run/metrics.jsonl") if "loss" in line]
    assert updates == [step for each in of_weights for step in range(each["first_step"], each["last_step"] + 1)]
    assert report["backend"] == "verl"
