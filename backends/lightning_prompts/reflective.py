"""Reflective evolution with a Pareto front of candidates: the library gepa (arXiv:2507.19457) inside our bounds.

gepa chooses parents, minibatches and components, and merges candidates. Every rollout, every question to the reflecting
model and every decision whether a candidate is better goes through `Problem`: gepa keeps no budget, cache or file.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import gepa
from gepa.core.adapter import EvaluationBatch
from gepa.strategies.proposal_sampling import IndependentSampling

from lightning_prompts.candidate import PromptCandidate
from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.problem import Problem
from lightning_prompts.races import differences, is_behind, race
from lightning_prompts.reflection import Question
from lightning_sdk.rollouts.tasks import Task

_MERGES = 5
_ABOVE_ZERO = 1e-6
_IDLE_ROUNDS = 3
"""Rounds in a row, beyond a whole pass over the tasks, in which nothing new was run or asked."""

Traced = tuple[PromptCandidate, Task]


class Reflective:
    """The algorithm 'reflective'."""

    def run(self, problem: Problem) -> None:
        adapter = _Adapter(problem)
        texts: dict[str, str] = {_Name(name): text for name, text in problem.pool.seed.texts.items()}
        gepa.optimize(
            seed_candidate=texts,
            trainset=problem.parts.reflection,
            valset=problem.parts.selection,
            adapter=adapter,
            perfect_score=adapter.gepa_score(problem.options.perfect),
            reflection_minibatch_size=min(problem.options.minibatch, len(problem.parts.reflection)),
            use_merge=len(texts) > 1,
            max_merge_invocations=_MERGES,
            sampling_strategy=IndependentSampling(_width(problem)),
            selection_strategy=_Races(adapter),
            stop_callbacks=[_Rounds(problem)],
            callbacks=[_Watch(problem)],
            logger=_Silent(),
            track_best_outputs=False,
            seed=problem.options.seed,
            # An error inside the library ends one round. SearchEnd, which is not an Exception, still ends the search.
            raise_on_exception=False,
        )


def _width(problem: Problem) -> int:
    """Proposals of a round: no more than there are different minibatches, since equal ones get equal replies."""
    batches = -(-len(problem.parts.reflection) // problem.options.minibatch)
    return max(1, min(problem.options.proposals, batches))


class _Name(str):
    """A component's name with the same hash in every process: gepa draws in the order of sets of names."""

    __slots__ = ()

    def __hash__(self) -> int:
        return zlib.crc32(self.encode())

    def __deepcopy__(self, _memo: Any) -> _Name:
        return self


class _Adapter:
    """What gepa knows of an agent."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._questions: list[dict[str, Question]] = []
        """Questions under way, in the order in which gepa comes back for the replies."""

    def candidate(self, texts: Mapping[str, str]) -> PromptCandidate:
        """The candidate that gepa means. One that nobody proposed is a merge."""
        made = PromptCandidate({str(name): text for name, text in texts.items()}, origin="merge")
        known = self.problem.pool.by_id.get(made.id)
        if known is None:
            self.problem.pool.add(made)
        return known or made

    def evaluate(
        self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Traced, None]:
        return self.batch_evaluate([(candidate, batch)])[0]

    def batch_evaluate(self, items: list[tuple[dict[str, str], list[Task]]]) -> list[EvaluationBatch[Traced, None]]:
        """Scores of several candidates, run side by side."""
        pairs = [[(self.candidate(texts), task) for task in tasks] for texts, tasks in items]
        self.problem.scorer.evaluate([each for part in pairs for each in part])
        return [
            EvaluationBatch(outputs=[None] * len(part), scores=self._scores(part), trajectories=part) for part in pairs
        ]

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: EvaluationBatch[Traced, None], components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """gepa makes those of a round before it asks for any text, so all questions are under way at once."""
        tasks = [task for _, task in eval_batch.trajectories or []]
        parent = self.candidate(candidate)
        self._questions.append(
            {str(name): self.problem.ask_for_text(parent, str(name), tasks) for name in components_to_update}
        )
        return {name: [] for name in components_to_update}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        """The new texts; none if the reply has no text that can be tried."""
        parent = self.candidate(candidate)
        child = self.problem.read_proposal(parent, self._questions.pop(0), "reflection")
        return {} if child is None else {name: child.texts[str(name)] for name in components_to_update}

    def _scores(self, pairs: Sequence[Traced]) -> list[float]:
        """A rollout that failed has no score, and gepa knows no such thing: it gets the mean of the others, so that
        sums and means of the batch say what they would say without it."""
        found = [self.problem.scorer.score(candidate, task) for candidate, task in pairs]
        known = [each for each in found if each is not None]
        mean = sum(known) / len(known) if known else 0.0
        return [self.gepa_score(mean if each is None else each) for each in found]

    def gepa_score(self, score: float) -> float:
        """A score as gepa is told it, above 0: it draws ancestors of merges in proportion to their means, and raises
        where these are 0."""
        return score - self.problem.options.lowest + _ABOVE_ZERO


class _Races:
    """Decides which proposals enter the pool: those that win a race against their parent."""

    def __init__(self, adapter: _Adapter) -> None:
        self._adapter, self._problem = adapter, adapter.problem

    def select(self, proposals: list[Any], state: Any, acceptance_criterion: Any) -> list[Any]:
        scorer, pool = self._problem.scorer, self._problem.pool
        racing: list[Any] = []
        pairs: list[tuple[PromptCandidate, PromptCandidate]] = []
        for proposal in proposals:
            child = self._adapter.candidate(proposal.candidate)
            parent = self._adapter.candidate(state.program_candidates[proposal.parent_program_ids[0]])
            tasks = [self._problem.parts.reflection[place] for place in proposal.subsample_indices or []]
            if is_behind(differences(scorer, child, parent, tasks)):
                pool.judge(child, False, f"behind its parent on the {len(tasks)} tasks that it was made from")
            elif child.id not in {each.id for each, _ in pairs}:
                racing.append(proposal)
                pairs.append((child, parent))
        verdicts = race(scorer, pairs, self._problem.parts.selection, self._problem.options.block)
        for (child, _), verdict in zip(pairs, verdicts, strict=True):
            pool.judge(child, verdict.accepted, verdict.reason)
        return [proposal for proposal, verdict in zip(racing, verdicts, strict=True) if verdict.accepted]


class _Rounds:
    """Asked by gepa before each round whether to stop."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seen, self._idle = (0, 0), 0

    def __call__(self, state: Any) -> bool:
        spent = self._problem.ledger.spent
        self._idle = self._idle + 1 if (spent.rollouts, spent.reflections) == self._seen else 0
        self._seen = (spent.rollouts, spent.reflections)
        batches = -(-len(self._problem.parts.reflection) // self._problem.options.minibatch)
        if self._idle >= batches + _IDLE_ROUNDS:
            raise SearchEnd(
                Why.EXHAUSTED,
                f"in {self._idle} rounds in a row there was nothing new to try: each candidate solves the reflection "
                "tasks that it was given",
            )
        self._problem.begin_round()
        return False


class _Watch:
    """Told by gepa what it does."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._ids: dict[int, str] = {}
        """gepa's number of a candidate -> its id."""

    def on_merge_attempted(self, event: Mapping[str, Any]) -> None:
        self._judge(event["merged_candidate"], False, "a merge that is worse than one of its parents")
        merged = _identify(event["merged_candidate"])
        self._problem.pool.set_parents(merged, [self._ids[number] for number in event["parent_ids"]])

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        self._ids[event["candidate_idx"]] = _identify(event["candidate"])
        self._judge(event["candidate"], True, "no worse than its parents")

    def on_iteration_end(self, event: Mapping[str, Any]) -> None:
        self._problem.end_round()

    def _judge(self, texts: Mapping[str, str], accepted: bool, reason: str) -> None:
        known = self._problem.pool.by_id.get(_identify(texts))
        if known is not None and known.origin == "merge":
            self._problem.pool.judge(known, accepted, reason)


def _identify(texts: Mapping[str, str]) -> str:
    return PromptCandidate({str(name): text for name, text in texts.items()}).id


class _Silent:
    """gepa's messages are for its developers."""

    def log(self, message: str) -> None:
        pass
