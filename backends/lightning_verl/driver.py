"""The driver: the hub's view of VERL's run, with the front for its vLLM servers."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from lightning_hub.backend import Batch, Row, Update
from lightning_losses.schedule import default_rate, rate_of_update
from lightning_losses.token_means import counts
from lightning_process.transport import pack_batch
from lightning_sdk.errors import BackendDied, LightningError, ModelError
from lightning_sdk.settings import Settings
from lightning_verl.checkpoint import VerlCheckpoint, finish, read
from lightning_verl.config import DISAGGREGATED, trainer_mode
from lightning_verl.loss import NAMES
from lightning_verl.rows import list_roles, usable_rows
from lightning_verl.runner import Started
from lightning_vllm.auth import KEY
from lightning_vllm.front import Front, ServerAddress
from lightning_vllm.health import is_healthy

log = logging.getLogger(__name__)

#: Time for requests in progress to end before weights change, and the shorter time if they always include rollouts of
#: later steps. Requests that do not end in time are sent again afterwards.
_DRAIN_SECONDS, _SHORT_DRAIN_SECONDS = 30.0, 5.0
#: Time between two checks of the vLLM servers, and the time limit for their answer.
_POLL_SECONDS, _PATIENCE_SECONDS = 2.0, 10.0
#: VERL's name of a metric -> ours.
_METRICS = {"actor/loss": "loss", "actor/grad_norm": "grad_norm"}


class Driver:
    """VERL's run as a `lightning_process.routes.TrainingService`."""

    def __init__(self, settings: Settings, runner: Any, run: Any, front: Front, facts: dict[str, object]) -> None:
        """`runner`: the Ray actor; `run`: its loop, which only ends with an error."""
        self._settings, self._runner, self._run, self._front = settings, runner, run, front
        self._apart = trainer_mode(settings) == DISAGGREGATED
        """Whether vLLM has separate GPUs, and keeps its requests during an update."""
        started: Started = self._ask(runner.ready.remote)
        self._upstreams = _upstreams(started.addresses)
        self._rate = settings.optimizer.learning_rate or default_rate(started.parameters)
        self._facts = facts | {
            "learning_rate": self._rate,
            "parameters": started.parameters,
            "vllm_servers": len(self._upstreams),
        }
        self.start = started.phases
        """Duration in seconds of the phases of VERL's start."""
        self.version = self.steps = 0
        self._turn = threading.Lock()
        """Held while the runner is used: updates, checkpoints and repairs run one at a time."""
        front.serve(self._upstreams, 0)
        for work in (self._watch_loop, self._watch_servers):
            threading.Thread(target=work, name="verl-watch", daemon=True).start()

    def facts(self) -> dict[str, object]:
        return dict(self._facts)

    def update(self, batch: Batch) -> Update:
        """Run one step of VERL's loop, and serve the new weights.

        If vLLM has separate GPUs, it answers during the update, and its requests only pause while weights are sent.
        Otherwise it sleeps during the update, and all requests are finished or cancelled before.
        """
        rate = rate_of_update(self._settings, self._rate, updates=self.steps, step=batch.step)
        packed = pack_batch(batch)
        with self._turn:
            if not self._apart:
                self._hold_requests()
            self._ask(lambda: self._runner.learn.remote(packed, rate))
            if self._apart:
                self._hold_requests(keep=True)
            self.version, found = self._ask(self._runner.serve.remote)
            self.steps += 1
            self._front.resume(self.version)
        metrics = _rename_metrics(found, list_roles(batch.rows)) | counts(batch.rows, usable_rows(batch.rows))
        return Update(self.version, metrics | {"learning_rate": rate})

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        raise LightningError(f"the VERL backend cannot score rows by {what!r}")

    def save(self, folder: Path) -> int:
        with self._turn:
            version = int(self._ask(lambda: self._runner.save.remote(str(folder), self.steps)))
        finish(folder, VerlCheckpoint(version, self.steps))
        return version

    def load(self, folder: Path) -> int:
        found = read(folder)
        with self._turn:
            self._hold_requests()
            self._ask(lambda: self._runner.load.remote(str(folder), found.version))
            self.version, self.steps = found
            self._front.resume(self.version)
        return self.version

    def _hold_requests(self, *, keep: bool = False) -> None:
        """Send the servers no requests until `resume`, and restart those that died. Requests there are finished or
        cancelled, unless the servers `keep` them."""
        self._front.hold()
        ahead = self._settings.rollouts.staleness > 0
        seconds = _SHORT_DRAIN_SECONDS if ahead else _DRAIN_SECONDS
        left = 0 if keep else self._front.drain(seconds)
        if left and not ahead:
            log.warning("%d requests did not end within %.0f s after their step; they are sent again", left, seconds)
        self._restart_servers(self._find_dead())

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The runner's answer. Raises the error that ended VERL's loop, if it ends meanwhile."""
        answer = question()
        done, _ = ray.wait([answer, self._run], num_returns=1)
        if done[0] is self._run or done[0] == self._run:
            raise _loop_error(self._run)
        try:
            return ray.get(answer)
        except ray.exceptions.RayActorError as error:
            raise BackendDied(f"VERL's process ended: {error}") from error
        except ray.exceptions.RayTaskError as error:
            ended, _ = ray.wait([self._run], timeout=5.0)
            raise _loop_error(self._run) if ended else LightningError(_last_line(error)) from error

    def _watch_servers(self) -> None:
        """Restart vLLM servers that died. Their requests wait in the front and are sent again."""
        while ray.is_initialized():
            time.sleep(_POLL_SECONDS)
            with self._turn:
                if (gone := self._find_dead()) and ray.is_initialized():
                    self._front.hold()
                    if not self._apart:
                        self._front.drain(0.0)
                    try:
                        self._restart_servers(gone)
                    except LightningError as error:
                        _end_process(error)
                        return
                    self._front.resume(self.version)

    def _find_dead(self) -> list[int]:
        """Ranks of the servers that failed two checks."""
        gone = [rank for rank, each in enumerate(self._upstreams) if not is_healthy(each, _PATIENCE_SECONDS)]
        if gone:
            time.sleep(_POLL_SECONDS)
        return [rank for rank in gone if not is_healthy(self._upstreams[rank], _PATIENCE_SECONDS)]

    def _restart_servers(self, gone: list[int]) -> None:
        """Restart these servers while the front holds requests."""
        if not gone:
            return
        urls = ", ".join(self._upstreams[rank].url for rank in gone)
        log.warning("vLLM does not answer at %s: it is restarted", urls)
        self._upstreams = _upstreams(self._ask(lambda: self._runner.restart_servers.remote(gone)))
        self._front.serve(self._upstreams, self.version)
        log.warning("it serves version %d again", self.version)

    def _watch_loop(self) -> None:
        """End this process when VERL's loop ends: the hub notices when this process is gone."""
        ray.wait([self._run])
        if not ray.is_initialized():
            return  # the backend is ending; another call would start a new Ray
        _end_process(_loop_error(self._run))


def _end_process(error: LightningError) -> None:
    """Log why, and end this process. The hub notices that."""
    log.error("%s", error)
    threading.Timer(5.0, os._exit, (1,)).start()  # so that callers that wait get the error first


def _upstreams(addresses: Sequence[str]) -> list[ServerAddress]:
    return [ServerAddress(f"http://{address}/v1", os.environ[KEY]) for address in addresses]


def _loop_error(run: Any) -> LightningError:
    try:
        ray.get(run)
    except Exception as error:
        if "not find" in str(error) and "model" in str(error):
            return ModelError(_last_line(error))
        return BackendDied(f"VERL's loop ended: {_last_line(error)}")
    return BackendDied("VERL's loop ended by itself")


def _last_line(error: BaseException) -> str:
    """The error in a remote traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _rename_metrics(found: dict[str, Any], roles: Sequence[str]) -> dict[str, float]:
    """VERL's metrics of a step and of its tokens, under the hub's names."""
    metrics = {ours: float(found[name]) for name, ours in _METRICS.items() if name in found}
    metrics |= {
        f"verl/{name.removeprefix('timing_s/')}_seconds": float(value)
        for name, value in found.items()
        if name.startswith("timing_s/")
    }
    metrics |= {f"verl/{name}": float(value) for name, value in found.items() if name.startswith("perf/")}
    sums = {name: [float(found.get(f"actor/{index}/{name}", 0.0)) for index in range(len(roles))] for name in NAMES}
    counts = [float(found.get(f"actor/{index}/count", 0.0)) for index in range(len(roles))]
    for name, values in sums.items():
        if not any(values) and name == "kl_reference":
            continue
        metrics[name] = sum(values) / max(1.0, sum(counts))
        metrics |= {
            f"{name}/{role or 'none'}": value / count
            for role, value, count in zip(roles, values, counts, strict=True)
            if count
        }
    return metrics | {"seconds": float(found.get("timing_s/step", 0.0))}
