"""Phases: one run that trains weights and tunes prompts in turns, as the arbiter chooses.

A phase that lost is undone: the run goes on with the best weights and prompts that it had.

A search in a phase begins with the texts in force and runs its own rollouts, because every score that an earlier search
had was of other weights. Updates are made with the texts in force.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning_hub.feed import Feed
from lightning_hub.results.run_folder import RunFolder
from lightning_hub.rollouts.plan import Plan, find_backend
from lightning_hub.rollouts.rounds import Rounds
from lightning_hub.statistics.reward_range import reward_range
from lightning_hub.storage.whole_file import replace_file
from lightning_hub.training.arbiter import LEVEL, Kind, Phase, TaskScores, choose, loss_since
from lightning_hub.training.phase_journal import BegunPhase, PhaseJournal
from lightning_hub.training.searching import PlanSearch
from lightning_sdk.hub.events import NoticeEvent
from lightning_sdk.results.prompt_search import CANDIDATES
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_files import read_lines
from lightning_sdk.settings import Settings
from lightning_sdk.settings.provider import PROMPTS
from lightning_sdk.trace.call import Status

_SEEDS = 1 << 32


@dataclass(frozen=True, slots=True)
class PhaseHooks:
    """What phases need of the training that they belong to."""

    step: Callable[[], int]
    """The last step that was done."""
    train_until: Callable[[int], None]
    """Does the steps up to this one, and keeps the weights."""
    restore: Callable[[int], None]
    """Goes back to the weights after this step; what was saved later is of no use any more."""
    note_search: Callable[[int, Mapping[str, float]], None]
    """A round of a search is done, as this step."""
    score: Callable[[str], TaskScores]
    """Scores on the tasks that phases are compared on, as an evaluation of this name."""


class PhasedTraining:
    """The phases of one run, from wherever its journal says that it stands."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        journal: PhaseJournal,
        rounds: Rounds,
        feed: Feed,
        stopping: threading.Event,
        hooks: PhaseHooks,
    ) -> None:
        self._plan, self._settings, self._folder, self._journal = plan, plan.settings, folder, journal
        self._rounds, self._feed, self._stopping, self._hooks = rounds, feed, stopping, hooks
        rounds.candidate = journal.candidate

    def run(self) -> None:
        """Do all steps of the run."""
        journal = self._journal
        self._write_phases()
        while True:
            if not journal.is_measured:
                self._measure()
            if journal.begun is None:
                self._undo_loss()
            if journal.begun is None and self._hooks.step() >= self._settings.steps:
                return
            self._carry_out(journal.begun or self._begin())

    def _measure(self) -> None:
        phases = len(self._journal.phases)
        number = phases + (self._journal.begun is not None)
        self._journal.measure(self._hooks.score(f"phase-{number}"))
        self._write_phases()
        if len(self._journal.phases) > phases:
            self._tell(describe_phase(self._journal.phases[-1], len(self._plan.deciding)))

    def _undo_loss(self) -> None:
        """Go back to the best state so far if the last phase made the run worse than that, beyond chance."""
        journal = self._journal
        best, now = journal.find_best(), journal.states[-1]
        state, phase = journal.states[best], len(journal.phases)
        given, trained = self._settings.evaluation.reward_range, self._folder.training_scores
        within = reward_range([*state.scores.values(), *now.scores.values()], given, trained)
        if state == now or (loss := loss_since(state.scores, now.scores, within)) is None:
            return
        journal.undo(best)
        if state.weights_step != now.weights_step:
            self._hooks.restore(state.weights_step)
        self._rounds.candidate = state.candidate
        self._folder.config({"search": state.search})
        self._write_phases()
        self._tell(
            f"phase {phase} is undone: the score is worse than the best one by {-(loss.mean or 0.0):.3f} ({LEVEL:.0%} "
            f"interval {loss.low:+.3f} to {loss.high:+.3f}); weights and prompts are those "
            + (f"after phase {best} again" if best else "that the run began with")
        )

    def _write_phases(self) -> None:
        self._folder.config({"phases": [each.as_dict() for each in self._journal.phases]})

    def _begin(self) -> BegunPhase:
        kind, why = choose(self._journal.phases, self._settings.phases.cost)
        begun = self._journal.begin(kind, why, self._hooks.step())
        self._tell(f"phase {begun.number}: {kind} ({why})")
        return begun

    def _carry_out(self, begun: BegunPhase) -> None:
        last = min(begun.step + self._settings.phases.steps, self._settings.steps)
        if begun.kind is Kind.WEIGHTS:
            self._hooks.train_until(last)
            self._journal.end(last, *self._cost(begun.step))
        else:
            self._search(begun, last)

    def _search(self, begun: BegunPhase, last: int) -> None:
        folder = self._folder.path / "phases" / f"{begun.number:03}"
        folder.mkdir(parents=True, exist_ok=True)
        seed = (self._settings.seed + begun.number) % _SEEDS
        settings = replace(self._settings, steps=last - begun.step, seed=seed)
        search = find_backend(Settings(backend=PROMPTS)).search
        assert search is not None

        def note(number: int, _version: int, metrics: Mapping[str, float]) -> None:
            self._hooks.note_search(begun.step + number, metrics)

        plan = replace(self._plan, settings=settings, held_out=[])  # which are for the verdict alone
        earlier = self._journal.search
        host = PlanSearch(plan, folder, self._rounds, self._feed, self._stopping, lambda: None, note, earlier)
        try:
            ending = search(host)
        finally:
            self._rounds.meter_calls(None)
        self._journal.end(self._hooks.step(), *self._cost(begun.step), ending.summary, ending.chosen)
        self._rounds.candidate = ending.chosen
        self._folder.config({"search": self._journal.search})
        self._merge_candidates()

    def _cost(self, before: int) -> tuple[int, float]:
        """Rollouts and seconds of the steps after this one."""
        lines = [line for line in self._folder.steps if (line["step"] or 0) > before]
        rollouts = sum(line.get(f"rollouts_{status}") or 0 for line in lines for status in Status)
        return int(rollouts), math.fsum(line.get("seconds") or 0 for line in lines)

    def _merge_candidates(self) -> None:
        """The candidates of all searches in one list, each as the last search has it, those refused last."""
        tried, refused = dict[str, Any](), list[Any]()
        for path in sorted((self._folder.path / "phases").glob(f"*/{CANDIDATES}")):
            for line in read_lines(path).whole:
                if line["state"] == "refused":
                    refused.append(line)
                elif line["state"] != "seed" or line["id"] not in tried:  # later ones begin with one of these
                    tried[line["id"]] = line
        lines = (json.dumps(line) + "\n" for line in (*tried.values(), *refused))
        replace_file(self._folder.path / CANDIDATES, "".join(lines))

    def _tell(self, text: str) -> None:
        self._feed.publish(NoticeEvent(text))


def describe_phase(phase: Phase, tasks: int) -> str:
    """What a phase came to."""
    before, after = ("-" if each is None else f"{each:.3f}" for each in (phase.before, phase.after))
    return (
        f"phase {phase.number} ({phase.kind}) gained {phase.gain:+.3f} for {quantity(phase.rollouts, 'rollout')} in "
        f"{phase.seconds:.0f} s: from {before} to {after} on the {quantity(tasks, 'task')} that phases are compared on"
    )
