"""The journal of a run's phases: each choice, measurement and ending, on disk before the run goes on.

One JSON object a line. A line torn by a kill is dropped when the file is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_hub.storage.whole_file import replace_file
from lightning_hub.training.arbiter import Kind, Phase, TaskScores, mean_gain, mean_score
from lightning_sdk.errors import ModelError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.results.run_files import read_lines

NAME = "phases.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunPhase:
    """A phase under way."""

    number: int
    kind: Kind
    why: str
    step: int
    """The last step before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseState:
    """Where a run stands before its first phase, or after one."""

    scores: TaskScores
    """On the tasks that phases are compared on."""
    search: Mapping[str, Any] | None
    candidate: Candidate | None
    weights_step: int
    """As in `PhaseJournal`, all three."""


class PhaseJournal:
    """One run's phases."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self.phases: list[Phase] = []
        """Those that are over."""
        self.states: list[PhaseState] = []
        """After each of them, and before the first one."""
        self.begun: BegunPhase | None = None
        self.scores: TaskScores | None = None
        """Where the run stands on the tasks that phases are compared on; None if that has to be measured."""
        self.step = 0
        """The last step of the last phase that is over."""
        self.search: Mapping[str, Any] | None = None
        """Summary of the search that found the texts in force, or of the last one if none did; None before one."""
        self.candidate: Candidate | None = None
        """The texts in force; None: the agent's own."""
        self.weights_step = 0
        """The last step of the phase that made the run's weights, after which there is a checkpoint. 0: the run began
        with them."""
        self._ended: dict[str, Any] | None = None
        """The last phase, as long as it is not measured."""
        found = read_lines(self._path)
        if found.torn:
            replace_file(self._path, "".join(json.dumps(line) + "\n" for line in found.whole))
        for line in found.whole:
            self._take(line)

    def resume_step(self, checkpoint: int) -> int:
        """The step after which the run goes on, if its last checkpoint was made after step `checkpoint`.

        Phases of prompts change no weights and have no checkpoints; one that was interrupted is read from its own
        journal.

        Raises:
            ModelError: a checkpoint is missing.
        """
        if checkpoint < self.weights_step:
            raise ModelError(
                f"the checkpoint after step {self.weights_step} is missing, and the phases after it were of its "
                "weights: put it back, or begin a new run"
            )
        return self.step if self.is_searching else max(self.step, checkpoint)

    @property
    def is_searching(self) -> bool:
        """Whether the phase under way is one of prompts."""
        return self.begun is not None and self.begun.kind is Kind.PROMPTS

    @property
    def is_measured(self) -> bool:
        """Whether the scores are those of the last phase that is over."""
        return self.scores is not None and self._ended is None

    def is_undone(self, checkpoint: int) -> bool:
        """Whether the checkpoint after this step is of weights that were undone."""
        return self.weights_step < checkpoint <= (self.step if self.begun is None else self.begun.step)

    def find_best(self) -> int:
        """The phase before the last one after which the mean score was highest, the later one of equal ones; 0: before
        all phases."""
        means = [mean_score(each.scores) or 0.0 for each in self.states[:-1]]
        return max(range(len(means)), key=lambda number: (means[number], number), default=0)

    def measure(self, scores: TaskScores) -> None:
        """The run's scores as it stands now. The phase that led to them is over with this."""
        self._add({"kind": "measured", "scores": dict(scores)})

    def begin(self, kind: Kind, why: str, step: int) -> BegunPhase:
        self._add({"kind": "begun", "what": str(kind), "why": why, "step": step})
        assert self.begun is not None
        return self.begun

    def end(
        self,
        step: int,
        rollouts: int,
        seconds: float,
        search: Mapping[str, Any] | None = None,
        candidate: Candidate | None = None,
    ) -> None:
        """The phase under way has done its last step. `candidate`: what its search chose."""
        chosen = None if candidate is None else candidate.as_message()
        line = {"kind": "ended", "step": step, "rollouts": rollouts, "seconds": round(seconds, 3)}
        self._add({**line, "search": None if search is None else dict(search), "candidate": chosen})

    def undo(self, to: int) -> None:
        """The run goes on with the weights and the prompts that it had after the phase `to`, or with 0 at its start."""
        self._add({"kind": "undone", "phase": len(self.phases), "to": to})

    def _add(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        match line["kind"]:
            case "begun":
                number = len(self.phases) + 1
                self.begun = BegunPhase(
                    number=number, kind=Kind(line["what"]), why=str(line["why"]), step=int(line["step"])
                )
            case "ended":
                self._ended = dict(line)
                self.step = int(line["step"])
                if self.begun is not None and self.begun.kind is Kind.WEIGHTS:
                    self.weights_step = self.step
                if (search := line["search"]) is not None:
                    self._take_search(search, line["candidate"])
            case "measured":
                if self._ended is not None and self.begun is not None:
                    self._close(self.begun, self._ended, line["scores"])
                self.scores = line["scores"]
                state = PhaseState(
                    scores=line["scores"],
                    search=self.search,
                    candidate=self.candidate,
                    weights_step=self.weights_step,
                )
                self.states[len(self.phases) :] = [state]
            case "undone":
                state = self.states[-1] = self.states[line["to"]]
                self.scores, self.search, self.candidate = state.scores, state.search, state.candidate
                self.weights_step = state.weights_step
                self.phases[-1] = replace(self.phases[-1], undone_to=line["to"])

    def _take_search(self, search: Mapping[str, Any], candidate: Mapping[str, Any] | None) -> None:
        if self.search is None or not search["nothing"] or self.candidate is None:
            self.search = search
        self.candidate = None if candidate is None else Candidate.from_message(candidate)

    def _close(self, begun: BegunPhase, ended: Mapping[str, Any], scores: TaskScores) -> None:
        before = self.scores or {}
        self.phases.append(
            Phase(
                number=begun.number,
                kind=begun.kind,
                why=begun.why,
                first_step=begun.step + 1,
                last_step=int(ended["step"]),
                before=mean_score(before),
                after=mean_score(scores),
                gain=mean_gain(before, scores),
                rollouts=int(ended["rollouts"]),
                seconds=float(ended["seconds"]),
            )
        )
        self.begun = self._ended = None
