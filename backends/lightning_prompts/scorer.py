"""The scorer: results of trials, each run at most once, charged once, and read from the journal if it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_prompts.arena import Arena, Trial, TrialKey, TrialResult
from lightning_prompts.candidate import PromptCandidate
from lightning_prompts.ending import ArenaFailed
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Ledger
from lightning_sdk.rollouts.tasks import Task


class TrialScorer:
    """One search's results by candidate, task and seed."""

    def __init__(self, arena: Arena, journal: Journal, ledger: Ledger, seeds: int = 1) -> None:
        """`seeds`: rollouts of each task, whose mean is its score."""
        self._arena, self._journal, self._ledger, self._seeds = arena, journal, ledger, seeds
        self._results: dict[TrialKey, TrialResult] = {}
        """What this session has used."""
        self.on_result: Callable[[Trial, TrialResult], None] = lambda _trial, _result: None
        """Called once for each result that is new to this session."""

    def prices(self, pairs: Sequence[tuple[PromptCandidate, Task]]) -> int:
        """How many rollouts it takes to have results of these."""
        return len(self._new(self._trials(pairs)))

    def evaluate(self, pairs: Sequence[tuple[PromptCandidate, Task]]) -> None:
        """Have a result for every seed of these; side by side.

        Raises:
            SearchEnd: they do not fit what may be spent. None of them was begun.
            ArenaFailed: the arena cannot go on.
        """
        new = self._new(self._trials(pairs))
        self._ledger.refuse_rollouts(len(new))
        first = 1 if self._ledger.is_blind else len(new)
        for part in (new[:first], new[first:]):
            if part:
                self._ledger.refuse_rollouts(len(part))
                self._have(part)

    def results(self, candidate: PromptCandidate, task: Task) -> list[TrialResult]:
        """The results there are so far, in the order of the seeds."""
        keys = [Trial(candidate, task, seed).key for seed in range(self._seeds)]
        return [self._results[key] for key in keys if key in self._results]

    def score(self, candidate: PromptCandidate, task: Task) -> float | None:
        """The mean over the seeds with a score; None if there is none."""
        scores = [each.score for each in self.results(candidate, task) if each.score is not None]
        return sum(scores) / len(scores) if scores else None

    def scores(self, candidate: PromptCandidate, tasks: Sequence[Task]) -> list[float | None]:
        return [self.score(candidate, task) for task in tasks]

    def count(self, candidate: PromptCandidate, tasks: Sequence[Task]) -> int:
        """Rollouts on these tasks."""
        return sum(len(self.results(candidate, task)) for task in tasks)

    def failures(self, candidate: PromptCandidate, tasks: Sequence[Task]) -> int:
        """Rollouts on these tasks that have no score."""
        return sum(each.score is None for task in tasks for each in self.results(candidate, task))

    def _trials(self, pairs: Sequence[tuple[PromptCandidate, Task]]) -> list[Trial]:
        return [Trial(candidate, task, seed) for candidate, task in pairs for seed in range(self._seeds)]

    def _new(self, trials: Sequence[Trial]) -> list[Trial]:
        return list({each.key: each for each in trials if each.key not in self._results}.values())

    def _have(self, trials: Sequence[Trial]) -> None:
        missing = []
        for each in trials:
            if (found := self._journal.results.get(each.key)) is not None:
                self._use(each, found)
            else:
                missing.append(each)
        if not missing:
            return
        self._ledger.refuse_late()
        self._journal.begin(each.key for each in missing)
        try:
            self._arena.run(missing, self._keep)
        except Exception as error:
            raise ArenaFailed(error) from error

    def _keep(self, trial: Trial, result: TrialResult) -> None:
        self._journal.add_result(trial.key, result)
        self._use(trial, result)

    def _use(self, trial: Trial, result: TrialResult) -> None:
        self._results[trial.key] = result
        self._ledger.charge_rollout(result)
        self.on_result(trial, result)
