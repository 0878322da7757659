"""Weights & Biases: a run of a project, with the settings as its config and what came out as its summary.

The project is the one that `--log-to wandb:PROJECT` names, else WANDB_PROJECT, else 'lightning-sdk'. Everything else is
as W&B's own variables and files say: WANDB_MODE, WANDB_ENTITY, WANDB_BASE_URL, WANDB_DIR and others.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

from wandb import Error, Settings, Table, init, login, setup

from lightning_sdk.errors import SettingError
from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.tracking.tracker import PROJECT, TrackedPlace, TrackedRun

_FINISH_SECONDS = 45.0
"""How long W&B may take to send what is left at the end; the rest stays in its folder, for `wandb sync`."""


class WandbTracker:
    """Logs to a run that is not `wandb.run`, so that the agent's own code may use W&B too."""

    def __init__(self, project: str) -> None:
        self._project = project or os.environ.get("WANDB_PROJECT") or PROJECT
        _log_in()

    def start(self, run: TrackedRun) -> TrackedPlace:
        self._run = init(
            project=self._project,
            name=run.name,
            id=run.earlier or None,
            resume="allow" if run.earlier else None,
            config=dict(run.config),
            allow_val_change=True,  # settings may change when a run goes on
            reinit="create_new",
            settings=Settings(**_settings()),
        )
        # Not W&B's own step, which never goes back: a run that goes on does steps after its checkpoint again.
        self._run.define_metric("*", step_metric="step")
        offline = f"wandb sync {shlex.quote(str(self._run.settings.sync_dir))}"
        return TrackedPlace(self._run.id, offline if self._run.offline else str(self._run.url))

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, "step": step})

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        columns = [each.name for each in fields(RolloutSample)]
        rows = [list(astuple(each)) for each in samples]
        self._run.log({**scalars, "held_out/samples": Table(columns=columns, data=rows), "step": step})

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=1 if status == "failed" else 0)


def _log_in() -> None:
    """Ask for a key now, as W&B does, while nothing runs yet; SettingError if there is none and nobody to ask."""
    if setup().settings.mode != "online":
        return
    try:
        found = login(verify=False)
    except Error as error:
        found, why = False, str(error)
    else:
        why = "no API key is configured"
    if not found:
        raise SettingError(
            f"log_to='wandb': {why}: run `wandb login`, set WANDB_API_KEY, or keep the run on this machine with "
            "WANDB_MODE=offline"
        )


def _settings() -> dict[str, Any]:
    """Ours, where W&B has them and its own variables do not say otherwise."""
    wanted = {"console": "off", "silent": True, "finish_timeout": _FINISH_SECONDS}
    return {
        name: value
        for name, value in wanted.items()
        if name in Settings.model_fields and f"WANDB_{name.upper()}" not in os.environ
    }
