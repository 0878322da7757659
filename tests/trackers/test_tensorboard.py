"""TensorBoard's event files, read with TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from lightning_sdk.tracking.tracker import TrackedPlace, TrackedRun
from lightning_trackers.tensorboard import TensorBoardTracker
from tests.trackers.conftest import TrackedTraining


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_every_number_is_that_of_the_run(training: TrackedTraining) -> None:
    """Each metric of each step and each score, also after going on; and nothing else."""
    events = read(training.place / "boards" / "bandit")
    found = {tag: {each.step: each.value for each in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    expected = training.numbers()
    assert found.keys() == expected.keys()
    for name, steps in expected.items():
        assert found[name] == pytest.approx(steps, rel=1e-6), name
    assert set(expected["train/reward_mean/solver"]) == {1, 2, 3}


def test_a_resumed_run_replaces_what_was_not_kept(tmp_path: Path) -> None:
    """Steps after the checkpoint from which a run goes on are there once, with their new values."""
    place = log(tmp_path, TrackedRun(name="run", folder=tmp_path), {1: 0.1, 2: 0.2, 3: 0.3})
    log(tmp_path, TrackedRun(name="run", folder=tmp_path, step=1, earlier=place.id), {2: 0.5})
    assert [(each.step, each.value) for each in read(tmp_path / "run").Scalars("train/loss")] == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.5)),
    ]


def test_a_new_run_of_the_same_name_replaces_the_old_one(tmp_path: Path) -> None:
    """Curves of two runs are not mixed."""
    log(tmp_path, TrackedRun(name="run", folder=tmp_path), {1: 0.1, 2: 0.2})
    log(tmp_path, TrackedRun(name="run", folder=tmp_path), {1: 0.5})
    assert [(each.step, each.value) for each in read(tmp_path / "run").Scalars("train/loss")] == [(1, 0.5)]


def log(folder: Path, run: TrackedRun, losses: dict[int, float]) -> TrackedPlace:
    """Log a run of these steps into a folder."""
    tracker = TensorBoardTracker(str(folder))
    place = tracker.start(run)
    for step, loss in losses.items():
        tracker.log_step(step, {"train/loss": loss})
    tracker.finish("finished", {})
    return place


def test_settings_and_verdict_are_there(training: TrackedTraining) -> None:
    """Settings as HParams, and what came out as text."""
    events = read(training.place / "boards" / "bandit")
    data = plugin_data_pb2.HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    hparams = data.session_start_info.hparams
    assert hparams["rollouts.group_size"].number_value == 4
    assert hparams["backend"].string_value == "bandit"
    assert hparams["facts.parameters"].number_value == 4
    samples = events.Tensors("samples")
    assert [each.step for each in samples] == [0, 2, 3]
    assert b"which arm" in samples[0].tensor_proto.string_val[0]
    text = events.Tensors("summary")[-1].tensor_proto.string_val[0].decode()
    assert f"| verdict | {training.report.verdict} |" in text


def test_the_folder_is_that_of_the_environment(
    alone: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is named, TENSORBOARD_LOGGING_DIR counts."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    alone(log_to="tensorboard")
    assert read(tmp_path / "elsewhere" / "bandit").Tags()["scalars"]
