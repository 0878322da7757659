"""The smallest program runs as it stands, and stays small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from tests.examples.modules import EXAMPLES

PROGRAM = EXAMPLES / "minimal" / "agent.py"


def test_it_has_fewer_than_thirty_lines() -> None:
    assert len(PROGRAM.read_text("utf-8").splitlines()) < 30


@pytest.mark.timeout(300)
def test_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main block of the example runs two small steps, and its calls have the ids that the engine sampled."""
    train, reports = lightning.train, []

    def train_briefly(*args: Any, **settings: Any) -> None:
        small = {"steps": 2, "rollouts.tasks_per_step": 4, "rollouts.group_size": 4, "evaluation.tasks": 4}
        reports.append(train(*args, **{**settings, **small, "runs": tmp_path, "quiet": True}))

    monkeypatch.setattr(lightning, "train", train_briefly)
    runpy.run_path(str(PROGRAM), run_name="__main__")
    assert reports[0].steps == 2 and reports[0].before.n == reports[0].after.n == 4
    steps = [json.loads(line) for line in (tmp_path / "minimal" / "metrics.jsonl").read_text().splitlines()]
    assert [step["rollouts_ok"] for step in steps] == [16, 16]
