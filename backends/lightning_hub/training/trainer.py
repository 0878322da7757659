"""The trainer: the loop that runs rollouts, computes their credit, updates the model and records the results."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from lightning_hub.backend import Backend, Batch, Scoring, SearchEnding, SearchHost, Update
from lightning_hub.credit.batch import TrainingBatch, build_batch, flat_groups
from lightning_hub.evaluation.evaluation import HeldOut, measure
from lightning_hub.feed import Feed
from lightning_hub.health import instability
from lightning_hub.replay.distill_dataset import open_dataset
from lightning_hub.replay.replay_dataset import ReplayDataset, without_effect
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.rollouts.leases import Leases
from lightning_hub.rollouts.plan import Plan
from lightning_hub.rollouts.rounds import Round, Rounds, Stopped
from lightning_hub.storage.index import Index
from lightning_hub.storage.store import Store
from lightning_hub.storage.writes import Writes
from lightning_hub.training import checks
from lightning_hub.training.checkpoints import Checkpoints
from lightning_hub.training.ending import Ending
from lightning_hub.training.pace import Pace
from lightning_hub.training.phase_journal import PhaseJournal
from lightning_hub.training.phases import PhasedTraining, PhaseHooks
from lightning_hub.training.searching import PlanSearch, keep_score
from lightning_hub.training.signal_watch import SignalWatch
from lightning_hub.training.step_metrics import running_means, step_metrics
from lightning_sdk.commands.earlier_run import differences
from lightning_sdk.errors import SettingError
from lightning_sdk.hub.events import (
    CheckedEvent,
    EvaluationEvent,
    LastEvent,
    NoticeEvent,
    StartedEvent,
    StatusEvent,
    StepEvent,
    WarningEvent,
)
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_report import Resumption
from lightning_sdk.rollouts.tasks import Task, task_id
from lightning_sdk.settings import Settings, placement

_log = logging.getLogger(__name__)


class Trainer:
    """Carries out one plan in its own thread, and publishes what happens on the feed."""

    def __init__(
        self, plan: Plan, *, folder: Path, leases: Leases, index: Index, store: Store, feed: Feed, writes: Writes
    ) -> None:
        """SettingError if the folder holds a run that is not to be resumed."""
        self._plan, self._settings = plan, plan.settings
        self._leases, self._index, self._store, self._feed = leases, index, store, feed
        self._writes = writes
        self._folder = RunFolder(folder)
        self._checkpoints = Checkpoints(folder)
        self._ending = Ending(self._folder, self._checkpoints, index, store)
        if self._folder.last_step and not (plan.resume or plan.evaluate_only):
            raise SettingError(
                f"{folder} holds a run of {quantity(self._folder.last_step, 'step')}: "
                f"give --resume {folder.name} to continue it, or choose another name"
            )
        self._owns_folder = not plan.resume
        """Whether the folder is this session's: one that cannot go on is left as it was."""
        self.step = 0
        """The last step that was finished."""
        self._version = 0
        self._means: dict[str, float] = {}
        """Role -> running mean of its rewards."""
        diagnoses = not (plan.evaluate_only or plan.backend.search)
        self._watch = SignalWatch(self._settings, self._folder, self._warn, diagnoses)
        self._phases = PhaseJournal(folder) if plan.deciding and not plan.check_only else None
        """Of a run that tunes prompts in turns with its weights."""
        self._pace = Pace(plan, feed)
        self._backend: Backend | None = None
        self._dataset: ReplayDataset | None = None
        """Stored rollouts to learn from, instead of running the agent."""
        self._rounds: Rounds | None = None
        self._stopping, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer", daemon=True)

    @property
    def is_busy(self) -> bool:
        """Whether the plan is being carried out; until the backend is closed and the last event is published."""
        return not self._over.is_set()

    @property
    def is_interrupted(self) -> bool:
        """Whether it was asked to end."""
        return self._stopping.is_set()

    def start(self) -> None:
        self._thread.start()

    def interrupt(self) -> None:
        """End after what is being computed now, and keep it; returns at once. Any thread."""
        self._stopping.set()
        self._leases.wake()

    def stop(self, seconds: float) -> bool:
        """End after what is being computed now, and close the backend. False if that took longer."""
        self.interrupt()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        last = self._end()
        self._close()
        self._over.set()
        self._feed.publish(last)

    def _end(self) -> LastEvent:
        """Carry the plan out; the last event, whatever happens."""
        try:
            try:
                return self._carry_out()
            except Stopped:
                return self._end_early()
        except BaseException as error:
            return self._ending.fail(error, writes=self._owns_folder)

    def _close(self) -> None:
        for part in (self._rounds, self._backend, self._dataset, self._folder):
            try:
                if part is not None:
                    part.close()
            except Exception:  # as on a full disk: the others are closed all the same
                _log.exception("%s was not closed cleanly", type(part).__name__)

    def _carry_out(self) -> LastEvent:
        plan = self._plan
        if not plan.resume:  # Before anything that takes long: with it, --resume finds the run.
            self._write_start()
        if plan.from_runs:
            self._dataset = open_dataset(plan)
        self._feed.publish(StatusEvent(f"starting the {self._plan.backend.name} backend"))
        backend = self._backend = self._plan.backend.start(self._settings, self._folder.path)
        watch = self._pace.note_rollouts
        rounds = self._rounds = Rounds(plan, backend, self._leases, self._index, self._writes, self._stopping, watch)
        if self._plan.check_only:
            return self._check(rounds)
        self._begin(backend)
        placed = placement.parse(self._settings.rollouts.runner)
        if placed is not None and placed.kind == "none" and not self._leases.runners():
            self._feed.publish(NoticeEvent("waiting for a runner to join"))
            rounds.await_runner()
        if self._plan.evaluate_only:
            self._evaluate("after", rounds)
        elif self._plan.backend.search is not None:
            self._search(self._plan.backend.search, rounds)
        else:
            self._train(backend, rounds)
        return self._ending.finish("finished", self.step)

    # --- the loop

    def _train(self, backend: Backend, rounds: Rounds) -> None:
        if told := self._checkpoints.check_room(self._plan, backend.facts(), self.step):
            self._feed.publish(WarningEvent(told))
        self._measure("before", rounds)
        if self._dataset is not None and self._dataset.candidate is not None:
            self._measure("prompted", rounds, self._dataset.candidate)
        if self._phases is None:
            self._train_until(self._settings.steps, backend, rounds)
        else:
            self._take_turns(self._phases, backend, rounds)
        self._evaluate("after", rounds)

    def _train_until(self, last: int, backend: Backend, rounds: Rounds) -> None:
        """Do the steps up to this one, and keep its weights."""
        while self.step < last:
            if self._stopping.is_set():
                raise Stopped
            self._one_step(self.step + 1, backend, rounds)
            if self.step == last or self.step % self._settings.save_every == 0:
                self._save(backend)
            every = self._settings.evaluation.every
            if self.step < self._settings.steps and every and self.step % every == 0:
                self._evaluate(f"step-{self.step}", rounds)

    def _take_turns(self, journal: PhaseJournal, backend: Backend, rounds: Rounds) -> None:
        """Train weights and tune prompts in phases."""
        if self._checkpoints.last() is None:  # the first phase of weights may be undone
            self._save(backend)
        hooks = PhaseHooks(
            step=lambda: self.step,
            train_until=lambda last: self._train_until(last, backend, rounds),
            restore=lambda step: self._restore(step, backend),
            note_search=lambda step, metrics: self._note(step, self._version, metrics),
            score=lambda name: self._score(name, self._plan.deciding, rounds).scores,
        )
        PhasedTraining(self._plan, self._folder, journal, rounds, self._feed, self._stopping, hooks).run()
        if self._checkpoints.last_name() != self._checkpoints.name(self.step):
            self._save(backend)

    def _search(self, search: Callable[[SearchHost], SearchEnding], rounds: Rounds) -> None:
        """Look for texts instead of training, and score what was found."""

        def measure() -> None:
            self._measure("before", rounds)

        self._folder.config({"search": self._folder.start.search or {}})
        host = PlanSearch(self._plan, self._folder.path, rounds, self._feed, self._stopping, measure, self._note)
        try:
            ending = search(host)
        finally:
            rounds.meter_calls(None)
        self._folder.config({"search": ending.summary})
        rounds.candidate = ending.chosen
        if ending.chosen is not None or not keep_score(self._folder, self._feed, self.step):
            self._evaluate("after", rounds)

    def _one_step(self, step: int, backend: Backend, rounds: Rounds) -> None:
        if self._dataset is not None:
            self._stored_step(step, backend, self._dataset)
            return
        began = time.monotonic()
        round_ = self._run_round(step, rounds)
        generated = time.monotonic()
        batch, update = self._learn(step, round_, backend)
        ended = time.monotonic()
        seconds = {"seconds": ended - began, "seconds_generate": generated - began, "seconds_update": ended - generated}
        self._note(step, update.version, step_metrics(round_, batch, update, seconds, self._version, self._settings))
        self._pace.note_step(step, round_.rollouts, generated - began, ended - generated)
        self._watch.note_step(round_, batch, rounds)

    def _stored_step(self, step: int, backend: Backend, dataset: ReplayDataset) -> None:
        """A step whose rows come from stored rollouts."""
        began = time.monotonic()
        drawn = dataset.draw(step)
        read = time.monotonic()
        update = backend.update(drawn.batch) if drawn.batch.rows else Update(self._version)
        ended = time.monotonic()
        seconds = {"seconds": ended - began, "seconds_read": read - began, "seconds_update": ended - read}
        self._note(step, update.version, {**update.metrics, **drawn.metrics, **seconds})
        self._pace.note_step(step, (), 0.0, ended - began)

    def _run_round(self, step: int, rounds: Rounds) -> Round:
        """Where a step's rollouts come from: its round, with further tasks for groups without signal."""
        round_ = rounds.step(step)
        self._watch.examine(round_, rounds)
        for _ in range(self._settings.algorithm.dynamic_sampling):
            flat = flat_groups(round_.rollouts, self._settings) - set(round_.replaced)
            in_order = dict.fromkeys(each.group for each in round_.rollouts if each.group in flat)
            if not flat or not rounds.replace(round_, list(in_order)):
                break
            self._watch.examine(round_, rounds)
        rounds.end(round_)
        return round_

    def _learn(self, step: int, round_: Round, backend: Backend) -> tuple[TrainingBatch, Update]:
        """What is done with a step's rollouts. Without a row, as when no role's turn has come, there is no update."""
        scoring = cast(Scoring, backend) if hasattr(backend, "score") else None
        batch = build_batch(
            round_.rollouts,
            self._settings,
            step=step,
            version=self._version,
            means=self._means,
            scoring=scoring,
            replaced=round_.replaced,
        )
        calls = sum(call.meta.trainable for each in round_.rollouts for call in each.calls)
        checks.refuse_problems(batch.problems, calls)
        self._means = batch.means
        return batch, backend.update(Batch(step, batch.rows)) if batch.rows else Update(self._version)

    def _warn(self, text: str) -> None:
        _log.warning("%s", text)
        self._feed.publish(WarningEvent(text))

    def _check(self, rounds: Rounds) -> LastEvent:
        """One round, as training would run it; the last event."""
        count = self._settings.rollouts.tasks_per_step * self._settings.rollouts.group_size
        self._feed.publish(StatusEvent(f"running {quantity(count, 'rollout')}"))
        round_ = rounds.step(1)
        found = rounds.diagnosis(round_)
        self._folder.diagnosis(found)
        return CheckedEvent(found)

    def _measure(self, name: str, rounds: Rounds, candidate: Candidate | None = None) -> None:
        """Score the model that the run begins with, with these texts, unless an earlier session has."""
        if name not in {each.name for each in self._folder.held_out}:
            rounds.candidate = candidate
            self._evaluate(name, rounds)
            rounds.candidate = None

    def _evaluate(self, name: str, rounds: Rounds) -> None:
        """Score on the held-out tasks, with the texts that are in force."""
        if self._plan.held_out:
            measured = self._score(name, self._plan.held_out, rounds)
            self._folder.evaluation(measured)
            self._feed.publish(EvaluationEvent(name, measured.summary(), measured.samples))

    def _score(self, name: str, tasks: Sequence[Task], rounds: Rounds) -> HeldOut:
        """The score on these tasks. Failed rollouts have none: they are left out and counted."""
        assignments = self._plan.of_scoring(name, tasks, rounds.endpoint, rounds.candidate)
        round_ = rounds.evaluation(assignments, f"evaluation {name!r}")
        if tasks is self._plan.held_out:
            self._pace.note_evaluation(round_.seconds)
        self._watch.examine(round_, rounds)
        look, trained = self._folder.next_look(name, self.step), self._folder.training_scores
        return measure(name, self.step, assignments, round_.rollouts, self._settings, look=look, trained=trained)

    # --- what is written down

    def _begin(self, backend: Backend) -> None:
        facts = {name: each if isinstance(each, int | float) else str(each) for name, each in backend.facts().items()}
        if self._plan.resume:
            checks.refuse_other_model(self._folder.start.facts, facts, self._settings.model)
            self._resume(backend)
        sizes = dict[str, str | int | float](tasks=len(self._plan.tasks), held_out_tasks=len(self._plan.held_out))
        if self._plan.deciding:
            sizes["deciding_tasks"] = len(self._plan.deciding)
        if self._dataset is not None:
            self._dataset.refuse_other_tokenizers(str(facts.get("tokenizer", "")))
            self._dataset.prepare(backend.endpoint)
            sizes |= self._dataset.facts()
            self._feed.publish(StatusEvent(self._dataset.describe()))
            if idle := without_effect(self._settings):
                told = f"these settings have no effect when learning from stored rollouts: {', '.join(idle)}"
                self._feed.publish(WarningEvent(told))
        if self._plan.resume:
            self._write_start()
        self._folder.config({"facts": {**facts, **sizes}})
        self._owns_folder = True
        steps = 0 if self._plan.evaluate_only else self._settings.steps
        searches = self._plan.backend.search is not None
        self._feed.publish(StartedEvent(steps, self.step, self._settings.model, str(self._folder.path), searches))

    def _write_start(self) -> None:
        """What is known of a run before its first rollout: how it was started, and which tasks are held out."""
        plan, before = self._plan, self._folder.start
        values = {**plan.start_facts(), "settings": self._settings.as_dict()}
        if plan.resume and before.settings is not None:
            changed = differences(Settings.from_dict(before.settings), self._settings)
            values["resumed"] = [asdict(each) for each in (*before.resumed, Resumption(self.step, changed))]
        if not plan.evaluate_only:
            self._folder.tasks(map(task_id, (*plan.tasks, *plan.deciding)), plan.reserved)
        self._folder.config(values)

    def _resume(self, backend: Backend) -> None:
        """Continue after the last complete checkpoint; what came after it is cut."""
        if self._phases is not None:
            self._checkpoints.remove(self._phases.is_undone)
        found = self._checkpoints.last()
        trained = self._checkpoints.step(found) if found is not None else 0
        self.step = self._pace.done = trained if self._phases is None else self._phases.resume_step(trained)
        if found is not None:
            self._restore(trained, backend)
        self._folder.cut(self.step)
        self._watch.resume(self._folder.steps)
        self._store.cut_steps(self.step)

    def _restore(self, step: int, backend: Backend) -> None:
        """Go on with the weights after this step."""
        self._version = backend.load(self._checkpoints.path(step))
        self._checkpoints.remove(lambda other: other > step)
        self._means = running_means(self._store.metrics(step))

    def _note(self, step: int, version: int, measured: Mapping[str, float]) -> None:
        """A step is done: this is what came of it."""
        metrics = {name: float(value) for name, value in measured.items()} | {"step": step, "version": version}
        self._version, self.step = version, step
        self._store.put_version(version, step, time.time())
        self._store.put_step(step, metrics)
        self._folder.step(metrics)
        self._feed.publish(StepEvent(step, self._settings.steps, metrics))
        if (lost := instability.check_step(step, metrics)) is not None:
            self._feed.publish(WarningEvent(str(lost)))

    def _save(self, backend: Backend) -> None:
        folder = self._checkpoints.save(self.step, backend.save)
        self._store.put_version(self._version, self.step, time.time(), str(folder.relative_to(self._folder.path)))

    def _end_early(self) -> LastEvent:
        """Asked to stop: keep what was learned, so that --resume goes on from here."""
        if (
            self._backend is not None
            and self._plan.backend.search is None
            and not (self._phases is not None and self._phases.is_searching)
            and self.step
            and self._checkpoints.last_name() != self._checkpoints.name(self.step)
        ):
            self._save(self._backend)
        return self._ending.finish("stopped", self.step)
