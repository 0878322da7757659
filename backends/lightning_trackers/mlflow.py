"""MLflow: a run of an experiment, with the settings as its parameters and what came out as metrics and tags.

The experiment is the one that `--log-to mlflow:EXPERIMENT` names, else MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID,
else 'lightning-sdk'. MLFLOW_TRACKING_URI, or `mlflow.set_tracking_uri`, says where it is kept.
"""

from __future__ import annotations

import os

# Before MLflow is imported: it would tell its makers how it is used, which nobody asked for with --log-to.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.tracking.tracker import PROJECT, TrackedPlace, TrackedRun

_AT_ONCE = 100
"""Parameters in one request: MLflow takes no more."""
_LENGTH = 500
"""Characters of a parameter or a tag that every store takes."""
_STATUS = {"finished": "FINISHED", "stopped": "KILLED"}


class MLflowTracker:
    """Logs through a client, so the active run is still the one that the agent's own code has started."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._client = MlflowClient()
        self._step = 0

    def start(self, run: TrackedRun) -> TrackedPlace:
        found = self._find(run.earlier) if run.earlier else None
        if found is None:
            found = self._client.create_run(self._find_experiment(), run_name=run.name)
        else:
            self._client.update_run(run.earlier, status="RUNNING")
        self._id, self._step = found.info.run_id, run.step
        self._log_config(run.config, found.data.params)
        return TrackedPlace(self._id, self._describe_place(found.info.experiment_id))

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        self._step, now = step, int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, step) for name, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        self.log_step(step, scalars)
        if samples:
            table = {each.name: [getattr(sample, each.name) for sample in samples] for each in fields(RolloutSample)}
            self._client.log_table(self._id, table, f"samples/step-{step:05d}.json")

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self.log_step(self._step, {name: value for name, value in summary.items() if not isinstance(value, str)})
        tags = [RunTag(name, value[:_LENGTH]) for name, value in summary.items() if isinstance(value, str)]
        self._client.log_batch(self._id, tags=tags)
        self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))

    def _find(self, run_id: str) -> Any | None:
        """The run, if it is still there."""
        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _find_experiment(self) -> str:
        """Its id; a new experiment's, if there is none of this name."""
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name and (known := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            return known
        found = self._client.get_experiment_by_name(name or PROJECT)
        return str(self._client.create_experiment(name or PROJECT) if found is None else found.experiment_id)

    def _log_config(self, config: Mapping[str, Any], logged: Mapping[str, str]) -> None:
        """MLflow keeps a parameter as it was first: what changed when the run went on becomes a tag."""
        values = {_name(name): "" if value is None else str(value)[:_LENGTH] for name, value in config.items()}
        params = [Param(name, value) for name, value in values.items() if name not in logged]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _AT_ONCE])
        changed = {name: value for name, value in values.items() if logged.get(name, value) != value}
        self._client.log_batch(self._id, tags=[RunTag(f"changed.{name}", value) for name, value in changed.items()])

    def _describe_place(self, experiment: str) -> str:
        uri = self._client.tracking_uri
        if uri.startswith(("http://", "https://")):
            return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{self._id}"
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def _name(name: str) -> str:
    """Of a metric or a parameter, without what MLflow refuses in names: the name of a role can be anything."""
    return re.sub(r"[^\w./ -]", "_", name)
