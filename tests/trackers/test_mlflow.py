"""MLflow with a new database, read back with MLflow's client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lightning_sdk.tracking.tracker import TrackedRun
from lightning_trackers.mlflow import MLflowTracker
from tests.trackers.conftest import TrackedTraining, reward


@pytest.fixture(scope="module")
def client(training: TrackedTraining) -> MlflowClient:
    return MlflowClient(f"sqlite:///{training.place}/mlflow.db")


@pytest.fixture(scope="module")
def run(training: TrackedTraining, client: MlflowClient) -> Run:
    """The only run of the only experiment: a training that goes on is logged to the run that it began."""
    (experiment,) = (each for each in client.search_experiments() if each.name == "lightning-sdk")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == training.place_of("mlflow")["id"]
    return found


def test_every_number_is_that_of_the_run(training: TrackedTraining, client: MlflowClient, run: Run) -> None:
    """Each metric of each step and each score, also after going on."""
    for name, steps in training.numbers().items():
        history = client.get_metric_history(run.info.run_id, name)
        assert {each.step: each.value for each in history} == steps, name


def test_settings_and_verdict_are_there(training: TrackedTraining, run: Run) -> None:
    """Settings as parameters, what changed on going on as tags, what came out as metrics and tags."""
    params, tags, after = run.data.params, run.data.tags, training.report.after
    assert (params["rollouts.group_size"], params["backend"], params["steps"]) == ("4", "bandit", "2")
    assert tags["changed.steps"] == "3"
    assert after is not None
    assert (tags["verdict"], run.data.metrics["held_out/after/mean"]) == (training.report.verdict, after.mean)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "bandit")


def test_samples_are_tables(client: MlflowClient, run: Run, tmp_path: Path) -> None:
    """One of each evaluation, with task, answer and reward."""
    paths = [each.path for each in client.list_artifacts(run.info.run_id, "samples")]
    assert paths == [f"samples/step-0000{step}.json" for step in (0, 2, 3)]
    table = json.loads(Path(client.download_artifacts(run.info.run_id, paths[0], str(tmp_path))).read_text())
    assert table["columns"] == ["task", "answer", "reward", "why"]
    assert all(reward({}, answer) == value for _, answer, value, _ in table["data"]) and table["data"]


def test_the_experiment_is_that_of_the_environment(
    alone: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is named, MLFLOW_EXPERIMENT_NAME counts; a run of the agent's own stays the active one."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with mlflow.start_run(experiment_id=mlflow.create_experiment("agents")) as active:
            alone(log_to="mlflow")
            current = mlflow.active_run()
            assert current is not None and current.info.run_id == active.info.run_id
        (found,) = mlflow.search_runs(experiment_names=["mine"], output_format="list")
    finally:
        mlflow.set_tracking_uri(None)
    assert found.data.metrics["train/reward_mean"] is not None


def test_a_server_that_cannot_be_reached_stops_no_training(
    alone: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, and the training does all its steps."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert alone(log_to="mlflow").steps == 1
    assert capsys.readouterr().err.count("this run is not logged to mlflow") == 1


def test_names_of_roles_may_be_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow refuses in a name is replaced."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracker = MLflowTracker("roles")
    place = tracker.start(TrackedRun(name="run", folder=tmp_path, config={"role.a(b).weight": 1.0}))
    tracker.log_step(1, {"train/reward_mean/a(b)": 0.5})
    tracker.finish("stopped", {"verdict": "better"})
    found = MlflowClient().get_run(place.id)
    assert (found.data.metrics, found.data.params) == ({"train/reward_mean/a_b_": 0.5}, {"role.a_b_.weight": "1.0"})
    assert found.info.status == "KILLED"


def test_a_run_that_was_deleted_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that goes on, and whose run is gone, gets a new one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    place = MLflowTracker("").start(TrackedRun(name="run", folder=tmp_path))
    MlflowClient().delete_run(place.id)
    deleted = MLflowTracker("").start(TrackedRun(name="run", folder=tmp_path, step=1, earlier=place.id))
    unknown = MLflowTracker("").start(TrackedRun(name="run", folder=tmp_path, step=1, earlier="f" * 32))
    assert len({place.id, deleted.id, unknown.id}) == 3
