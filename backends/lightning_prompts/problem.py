"""The problem that an algorithm is given: texts, tasks, and all it may do with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lightning_prompts import questions
from lightning_prompts.admission import Admission, Refusal
from lightning_prompts.arena import TrialResult
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.ledger import Ledger
from lightning_prompts.parts import TaskParts
from lightning_prompts.pool import CandidatePool
from lightning_prompts.reflection import Question, Reflector
from lightning_prompts.scorer import TrialScorer
from lightning_sdk.rollouts.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What algorithms go by."""

    rounds: int = 40
    """Rounds at most."""
    proposals: int = 4
    """Texts that are proposed in each round, side by side."""
    minibatch: int = 3
    """Tasks that one question to the reflecting model shows."""
    block: int = 5
    """Selection tasks of one stage of a race."""
    beam: int = 3
    """Candidates that 'apo' goes on with."""
    length_penalty: float = 0.002
    """What 1,000 characters cost when candidates are compared."""
    seed: int = 0
    perfect: float = 1.0
    """The highest score that a task can have."""
    lowest: float = 0.0
    """The lowest one."""


class Search(Protocol):
    """An algorithm. Everything that it draws depends on `options.seed`, so that it can be run again."""

    def run(self, problem: Problem) -> None:
        """Propose candidates and judge them until `problem` raises SearchEnd, or until nothing is left to do."""
        ...


class Problem:
    """One search under way."""

    def __init__(
        self,
        *,
        components: Sequence[Component],
        parts: TaskParts,
        options: SearchOptions,
        scorer: TrialScorer,
        reflector: Reflector,
        admission: Admission,
        pool: CandidatePool,
        ledger: Ledger,
    ) -> None:
        self.components: Mapping[str, Component] = {each.name: each for each in components}
        self.parts, self.options = parts, options
        self.scorer, self.reflector, self.admission, self.pool, self.ledger = scorer, reflector, admission, pool, ledger
        self.on_round: Callable[[int], None] = lambda _: None
        """Called after each round with its number."""

    # --- rounds

    def begin_round(self) -> None:
        """SearchEnd if there are no more rounds, or nothing is left to gain."""
        self.refuse_solved()
        if self.pool.round >= self.options.rounds:
            raise SearchEnd(Why.ROUNDS, f"all {self.options.rounds} rounds are done (steps)")
        self.pool.round += 1

    def end_round(self) -> None:
        self.on_round(self.pool.round)

    def refuse_solved(self) -> None:
        """SearchEnd if a candidate has the highest score on every selection task: none can be shown to be better."""
        for candidate in self.pool.usable:
            scores = self.scorer.scores(candidate, self.parts.selection)
            if all(each is not None and each >= self.options.perfect for each in scores):
                who = "the texts as they are have" if candidate is self.pool.seed else f"candidate {candidate.id} has"
                raise SearchEnd(
                    Why.SOLVED,
                    f"{who} the highest possible score ({self.options.perfect:g}) on all "
                    f"{len(scores)} selection tasks, so no candidate can be shown to be better",
                )

    # --- reflection

    def results(self, candidate: PromptCandidate, tasks: Sequence[Task]) -> list[TrialResult]:
        """What there is to reflect on, the lowest scores first."""
        found = [each for task in tasks for each in self.scorer.results(candidate, task)]
        return sorted(found, key=lambda each: each.score if each.score is not None else float("-inf"))

    def ask_for_text(self, candidate: PromptCandidate, name: str, tasks: Sequence[Task]) -> Question:
        """Ask for a better text of one component. End it with `read_proposal`."""
        component = self.components[name]
        limit = self.admission.limit(component)
        text = questions.improvement(component, candidate.texts[name], limit, self.results(candidate, tasks))
        return self.reflector.begin(text)

    def ask_for_critique(self, candidate: PromptCandidate, name: str, tasks: Sequence[Task]) -> Question:
        text = questions.critique(self.components[name], candidate.texts[name], self.results(candidate, tasks))
        return self.reflector.begin(text)

    def ask_for_edit(self, candidate: PromptCandidate, name: str, criticism: str) -> Question:
        component = self.components[name]
        limit = self.admission.limit(component)
        return self.reflector.begin(questions.edit(component, candidate.texts[name], limit, criticism))

    def read_proposal(
        self, parent: PromptCandidate, proposed: Mapping[str, Question], origin: str
    ) -> PromptCandidate | None:
        """The candidate with the proposed texts, by component; None if there is none that can be tried.

        Raises:
            SearchEnd: this was one unusable reply too many.
        """
        texts = {}
        for name, question in proposed.items():
            if (reply := self.reflector.end(question)) and (text := questions.read_text(reply)):
                texts[name] = text
            elif reply:
                self.reflector.note_unusable("no text between <instruction> and </instruction>")
        if not texts:
            return None
        child = parent.child(texts, origin)
        try:
            self.admission.refuse(child, self.pool.by_id)
        except Refusal as refusal:
            self.pool.refuse(child, str(refusal))
            self.reflector.note_unusable(f"refused: {refusal}")
            return None
        self.reflector.note_usable()
        self.pool.add(child)
        return child

    # --- choice

    def worth(self, candidate: PromptCandidate) -> float:
        """The mean on the selection tasks, less what its length costs; minus infinity if there is no score."""
        mean, _ = self.pool.mean(candidate, "selection")
        longer = candidate.length - self.pool.seed.length
        return float("-inf") if mean is None else mean - self.options.length_penalty * longer / 1000
