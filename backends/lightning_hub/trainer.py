"""The trainer: the loop that makes rollouts, weighs them, updates the model and writes down what came of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_hub import refusals
from lightning_hub.advantage import Weighed, weigh
from lightning_hub.backend import Backend, Batch, Update
from lightning_hub.checkpoints import Checkpoints
from lightning_hub.collector import collect, score, strays
from lightning_hub.diagnosis import Diagnosis, Round, diagnose
from lightning_hub.feed import Feed
from lightning_hub.index import Index
from lightning_hub.interval import interval
from lightning_hub.leases import GRACE_SECONDS, Leases
from lightning_hub.plan import Plan
from lightning_hub.rollout import Assignment, Rollout
from lightning_hub.runfolder import RunFolder
from lightning_hub.store import Store
from lightning_sdk.call import Status
from lightning_sdk.errors import LightningError, SettingError

#: How often it is looked whether the backend still lives while rollouts run.
_WATCH_SECONDS = 2.0
_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Somebody asked for the end."""


class Trainer:
    """One plan, carried out in a thread of its own. What happens is told on the feed."""

    def __init__(self, plan: Plan, *, folder: Path, leases: Leases, index: Index, store: Store, feed: Feed) -> None:
        """SettingError if the folder holds a run that is not to be resumed."""
        self._plan, self._settings = plan, plan.settings
        self._leases, self._index, self._store, self._feed = leases, index, store, feed
        self._folder = RunFolder(folder)
        self._checkpoints = Checkpoints(folder)
        if self._folder.last_step and not (plan.resume or plan.evaluate_only):
            raise SettingError(
                f"{folder} holds a run of {self._folder.last_step} steps: "
                f"give --resume {folder.name} to go on with it, or another name"
            )
        self.step = 0
        """The last step that was finished."""
        self._version = 0
        self._undiagnosed = set() if plan.evaluate_only else {"train", "evaluate"}
        """Modes of which no round has been diagnosed."""
        self._told: set[str] = set()
        self._backend: Backend | None = None
        self._stopping, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    @property
    def busy(self) -> bool:
        """Until the backend is closed and the last event is told."""
        return not self._over.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """End after what is being computed now, and close the backend. False if that took longer."""
        self._stopping.set()
        self._leases.wake()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        last: dict[str, Any] = {}
        try:
            last = self._carry_out()
        except _Stopped:
            last = self._end_early()
        except BaseException as error:
            last = self._fail(error)
        finally:
            if self._backend is not None:
                self._backend.close()
            self._folder.close()
            self._over.set()
            self._feed.publish(**last)

    def _carry_out(self) -> dict[str, Any]:
        self._feed.publish("status", text=f"starting the {self._plan.backend.name} backend")
        self._backend = self._plan.backend.start(self._settings, self._folder.path)
        if self._plan.check_only:
            return self._check(self._backend)
        self._begin(self._backend)
        if self._plan.evaluate_only:
            self._evaluate("after", self._backend)
        else:
            self._train(self._backend)
        return self._finish("finished")

    # --- the loop

    def _train(self, backend: Backend) -> None:
        if "before" not in {each.name for each in self._folder.held_out}:
            self._evaluate("before", backend)
        while self.step < self._settings.steps:
            self._one_step(self.step + 1, backend)
            last = self.step == self._settings.steps
            if last or self.step % self._settings.save_every == 0:
                self._save(backend)
            if not last and self._settings.evaluation.every and self.step % self._settings.evaluation.every == 0:
                self._evaluate(f"step-{self.step}", backend)
        self._evaluate("after", backend)

    def _one_step(self, step: int, backend: Backend) -> None:
        began = time.monotonic()
        rollouts = self._rollouts(self._plan.of_step(step, backend.endpoint), f"step {step}", backend)
        generated = time.monotonic()
        weighed = weigh(rollouts, self._settings.algorithm)
        refusals.refuse_problems(weighed.problems, _trainable(rollouts))
        update = backend.update(Batch(step, weighed.rows)) if weighed.rows else Update(self._version)
        ended = time.monotonic()
        seconds = {"seconds": ended - began, "seconds_generate": generated - began, "seconds_update": ended - generated}
        self._record(step, rollouts, weighed, update, seconds)

    def _rollouts(self, assignments: list[Assignment], name: str, backend: Backend) -> list[Rollout]:
        """Rollouts that can be used. RolloutsFailed, NothingToTrain, or the backend's death."""
        rollouts, diagnosis = self._round(assignments, name, backend)
        refusals.refuse_failures(rollouts, name, self._settings.failure.max_failed)
        if rollouts[0].mode in self._undiagnosed:
            self._undiagnosed.discard(rollouts[0].mode)
            self._tell(diagnosis())
        return rollouts

    def _round(
        self, assignments: list[Assignment], name: str, backend: Backend
    ) -> tuple[list[Rollout], Callable[[], Diagnosis]]:
        """Run assignments to their end, whatever that is; what came of them, and a way to diagnose it."""
        rules, retries = self._settings.rollouts, self._settings.failure.retries
        began, late = time.time_ns(), self._index.late_calls
        waves = math.ceil(len(assignments) / rules.concurrency)
        deadline = time.monotonic() + (rules.timeout + 2 * GRACE_SECONDS) * (retries + 1) * waves
        self._leases.offer(assignments, rules.concurrency, retries)
        done = False
        while not done and time.monotonic() < deadline:
            done = self._leases.wait(_WATCH_SECONDS, self._stopping.is_set)
            if self._stopping.is_set() or not backend.alive():
                break
        outcomes = self._leases.close("the hub was stopped" if self._stopping.is_set() else f"{name} ran out of time")
        if self._stopping.is_set():
            raise _Stopped
        if not done and not backend.alive():
            raise LightningError(f"the {self._plan.backend.name} backend died during {name}: see hub.log in the run")
        by_id = {outcome.assignment.id: collect(self._index, outcome) for outcome in outcomes}
        rollouts = [by_id[assignment.id] for assignment in assignments]
        return rollouts, lambda: diagnose(
            Round(
                rollouts,
                name,
                self._settings.roles,
                self._plan.declared_roles,
                strays(self._index, began),
                self._index.late_calls - late,
                self._plan.integrations,
                self._settings.failure.max_failed,
            )
        )

    def _tell(self, diagnosis: Diagnosis) -> None:
        """Stop for what can never be learned from, and warn once of the rest."""
        self._folder.diagnosis(diagnosis.as_dict())
        refusals.refuse_unlearnable(diagnosis)
        for finding in diagnosis.findings:
            if finding.kind not in self._told:
                self._told.add(finding.kind)
                _log.warning("%s", finding)
                self._feed.publish("warning", text=str(finding))

    def _check(self, backend: Backend) -> dict[str, Any]:
        """One round, as training would run it; the last event."""
        assignments = self._plan.of_step(1, backend.endpoint)
        self._feed.publish("status", text=f"running {len(assignments)} rollouts")
        _, diagnosis = self._round(assignments, "the check", backend)
        found = diagnosis().as_dict()
        self._folder.diagnosis(found)
        return {"kind": "finished", "diagnosis": found}

    def _evaluate(self, name: str, backend: Backend) -> None:
        """Score on the held-out tasks. Failed rollouts have no score: they are left out and counted."""
        if not self._plan.held_out:
            return
        rollouts = self._rollouts(self._plan.of_held_out(name, backend.endpoint), f"evaluation {name!r}", backend)
        scores = {str(each.task_id): score(each) for each in rollouts if each.status == Status.OK}
        measured = interval(list(scores.values()))
        failed = len(rollouts) - len(scores)
        self._folder.evaluation(name, self.step, measured, failed, scores)
        self._feed.publish("evaluation", name=name, step=self.step, failed=failed, **measured.as_dict())

    # --- what is written down

    def _begin(self, backend: Backend) -> None:
        if self._plan.resume:
            self._resume(backend)
        facts = {name: each if isinstance(each, int | float) else str(each) for name, each in backend.facts().items()}
        sizes = {"tasks": len(self._plan.tasks), "held_out_tasks": len(self._plan.held_out)}
        self._folder.config({"settings": self._settings.as_dict(), "facts": {**facts, **sizes}})
        self._feed.publish(
            "started",
            run=str(self._folder.path),
            model=self._settings.model,
            step=self.step,
            steps=self._settings.steps,
            facts=facts,
            endpoint={"url": backend.endpoint.url, "model": backend.endpoint.model},
            **sizes,
        )

    def _resume(self, backend: Backend) -> None:
        """Continue after the last complete checkpoint; what came after it is cut."""
        found = self._checkpoints.last()
        if found is not None:
            self.step = self._checkpoints.step(found)
            self._version = backend.load(found)
        self._folder.cut(self.step)
        self._store.cut_steps(self.step)

    def _record(
        self, step: int, rollouts: list[Rollout], weighed: Weighed, update: Update, seconds: dict[str, float]
    ) -> None:
        calls = [call for each in rollouts for call in each.calls if call.meta.trainable]
        tokens = sum(call.output_tokens for call in calls)
        metrics = {
            **update.metrics, **weighed.signal, **seconds, "step": step, "version": update.version,
            **{f"rollouts_{status}": sum(each.status == status for each in rollouts) for status in Status},
            "retries": sum(each.attempt - 1 for each in rollouts),
            "calls": len(calls), "tokens_generated": tokens, "tokens_per_second": tokens / seconds["seconds_generate"],
        }  # fmt: skip
        metrics = {name: float(value) for name, value in metrics.items()}
        self._version, self.step = update.version, step
        self._store.put_version(update.version, step, time.time())
        self._store.put_step(step, metrics)
        self._folder.step(metrics)
        self._feed.publish("step", step=step, steps=self._settings.steps, metrics=metrics)

    def _save(self, backend: Backend) -> None:
        folder = self._checkpoints.save(self.step, backend.save)
        self._store.put_version(self._version, self.step, time.time(), str(folder.relative_to(self._folder.path)))

    def _finish(self, status: str) -> dict[str, Any]:
        """Write the report; the last event."""
        report = self._folder.finish(self._store.totals(), self._checkpoints.last_name(), status)
        return {"kind": "finished", "report": report, "curve": self._folder.curve() if self.step else ""}

    def _end_early(self) -> dict[str, Any]:
        """Asked to stop: keep what was learned, so that --resume goes on from here."""
        if (
            self._backend is not None
            and self.step
            and self._checkpoints.last_name() != self._checkpoints.name(self.step)
        ):
            self._save(self._backend)
        return self._finish("stopped")

    def _fail(self, error: BaseException) -> dict[str, Any]:
        known = isinstance(error, LightningError)
        _log.error("the run failed", exc_info=error)
        text = str(error) if known else f"{type(error).__name__}: {error}; a bug of the hub or its backend: see hub.log"
        name = type(error).__name__ if known else "LightningError"
        self._folder.fail(error if known else text, self._store.totals(), self._checkpoints.last_name())
        return {"kind": "failed", "error": [name, text]}


def _trainable(rollouts: list[Rollout]) -> int:
    return sum(call.meta.trainable for each in rollouts for call in each.calls)
