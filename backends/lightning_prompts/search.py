"""One search from its first rollout to the candidate that it chooses, with what led to it in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_prompts.admission import Admission
from lightning_prompts.arena import Arena, Trial, TrialResult
from lightning_prompts.asking import Asker, ReflectingModel
from lightning_prompts.best_of import expected_luck
from lightning_prompts.candidate import Component, PromptCandidate
from lightning_prompts.ending import ArenaFailed, SearchEnd, Why
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance, Ledger, Spending
from lightning_prompts.meter import Meter
from lightning_prompts.parts import TaskParts
from lightning_prompts.pool import CandidatePool
from lightning_prompts.problem import Problem, Search, SearchOptions
from lightning_prompts.reflection import Reflector
from lightning_prompts.scorer import TrialScorer
from lightning_sdk.prompts.text_check import TextCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """What came of a search."""

    chosen: PromptCandidate
    """The seed, if no candidate is better."""
    why: Why
    ended: str
    """Why it ended, in words."""
    seed_score: float | None
    """Of the seed on the selection tasks."""
    score: float | None
    """Of the chosen candidate on the same tasks: it was chosen for this, so it says too much."""
    luck: float
    """How far the best of as many candidates would lie above their mean if all were equally good."""
    compared: int
    """Candidates with a score on every selection task, the seed among them."""
    rounds: int = 0
    """Rounds that were begun."""
    counts: dict[str, int] = field(default_factory=dict)
    """State -> how many candidates."""
    spent: Spending
    interrupted: int = 0
    """Rollouts that a kill interrupted, and that were run again."""
    nothing: str = ""
    """Why the texts stay as they are; '' if they do not."""

    def as_dict(self) -> dict[str, Any]:
        """As in report.json."""
        return {
            "chosen": self.chosen.id,
            "parents": list(self.chosen.parents),
            "texts": dict(self.chosen.texts),
            "why": str(self.why),
            "ended": self.ended,
            "selection": {"before": self.seed_score, "after": self.score, "luck": self.luck, "compared": self.compared},
            "rounds": self.rounds,
            "candidates": self.counts,
            "spent": self.spent.as_dict(),
            "interrupted": self.interrupted,
            "nothing": self.nothing,
        }


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is told while a search runs."""

    on_problem: Callable[[Problem], None] = lambda _: None
    """Before its first rollout."""
    on_result: Callable[[Trial, TrialResult], None] = lambda _trial, _result: None
    on_round: Callable[[int], None] = lambda _: None
    on_wait: Callable[[], None] = lambda: None
    """Now and then while the reflecting model is waited for; what it raises ends the search, which can go on later."""
    on_slow: Callable[[str], None] = lambda _: None
    """With words for the user, if the reflecting model is waited for long."""


def run_search(
    algorithm: Search,
    *,
    components: Sequence[Component],
    parts: TaskParts,
    arena: Arena,
    model: ReflectingModel,
    journal: Journal,
    options: SearchOptions,
    allowance: Allowance,
    check: TextCheck,
    seeds: int = 1,
    meter: Meter | None = None,
    hooks: Hooks | None = None,
    texts: Mapping[str, str] | None = None,
) -> SearchOutcome:
    """Search for better texts, going on where the journal stops. `texts`: those to begin with, by component, if they
    are others than the agent's own.

    Whatever the arena raises rises; all that came before is in the journal.
    """
    hooks = hooks or Hooks()
    ledger = Ledger(allowance, journal.seconds, (lambda: meter.total) if meter is not None else None)
    journal.clock = lambda: ledger.seconds
    scorer = TrialScorer(arena, journal, ledger, seeds)
    scorer.on_result = hooks.on_result
    seed = PromptCandidate(texts or {each.name: each.text for each in components})
    pool = CandidatePool(seed, scorer, {"selection": parts.selection, "reflection": parts.reflection})
    reflector = Reflector(model, journal, ledger, Asker(model, ledger, meter))
    reflector.charge_check()
    problem = Problem(
        components=components,
        parts=parts,
        options=options,
        scorer=scorer,
        reflector=reflector,
        admission=Admission(components, check),
        pool=pool,
        ledger=ledger,
    )
    problem.on_round, reflector.on_wait, reflector.on_slow = hooks.on_round, hooks.on_wait, hooks.on_slow
    hooks.on_problem(problem)
    try:
        end = _run_to_end(algorithm, problem)
    except ArenaFailed as failure:
        raise failure.cause from None
    finally:
        reflector.close()
    return _outcome(problem, end, journal.interrupted)


def _run_to_end(algorithm: Search, problem: Problem) -> SearchEnd:
    try:
        problem.scorer.evaluate([(problem.pool.seed, task) for task in problem.parts.selection])
        problem.refuse_solved()
        algorithm.run(problem)
    except SearchEnd as end:
        problem.reflector.settle()
        return end
    return SearchEnd(Why.EXHAUSTED, "nothing was left to try")


def _outcome(problem: Problem, end: SearchEnd, interrupted: int) -> SearchOutcome:
    pool, tasks = problem.pool, problem.parts.selection
    chosen = choose(problem)
    complete = [
        scores for each in pool.by_id.values() if None not in (scores := problem.scorer.scores(each, tasks)) and scores
    ]
    return SearchOutcome(
        chosen=chosen,
        why=end.why,
        ended=end.text,
        seed_score=pool.mean(pool.seed, "selection")[0],
        score=pool.mean(chosen, "selection")[0],
        luck=expected_luck([[each for each in scores if each is not None] for scores in complete]),
        compared=len(complete),
        rounds=pool.round,
        counts=dict(pool.counts),
        spent=problem.ledger.total(),
        interrupted=interrupted,
        nothing="" if chosen is not pool.seed else _why_nothing(problem, end),
    )


def choose(problem: Problem) -> PromptCandidate:
    """The candidate with the highest score on the selection tasks, less what its length costs; of equal ones the first.

    One that has not run on all of them is not chosen, nor one with which the agent fails more often than by itself.
    """
    pool, scorer, tasks = problem.pool, problem.scorer, problem.parts.selection
    fails = scorer.failures(pool.seed, tasks)
    whole = [
        each
        for each in pool.usable
        if all(scorer.results(each, task) for task in tasks) and scorer.failures(each, tasks) <= fails
    ]
    return max(whole, key=problem.worth, default=pool.seed)


def _why_nothing(problem: Problem, end: SearchEnd) -> str:
    """Why no candidate was chosen."""
    counts, reflections = problem.pool.counts, problem.ledger.spent.reflections
    if end.why is Why.SOLVED:
        return "the tasks are already solved"
    if not reflections:
        return f"no better text was asked for: {end.text}"
    if not problem.reflector.proposals:
        refused = counts.get("refused", 0)
        what = f"all {refused} proposals were refused" if refused else "the reflecting model never proposed a text"
        return f"{what}: {end.text}"
    if (only := _only_score(problem)) is not None:
        return f"every rollout of the search scored {only:g}: a reward without a spread cannot tell texts apart"
    tried = counts.get("rejected", 0) + counts.get("accepted", 0) + counts.get("proposed", 0)
    none = "the only candidate that was tried is not" if tried == 1 else f"none of the {tried} candidates tried is"
    return f"{none} shown to be better than the texts as they are"


def _only_score(problem: Problem) -> float | None:
    """The score of every rollout, if all have the same."""
    seen = {
        result.score
        for candidate in problem.pool.by_id.values()
        for task in (*problem.parts.selection, *problem.parts.reflection)
        for result in problem.scorer.results(candidate, task)
        if result.score is not None
    }
    return seen.pop() if len(seen) == 1 else None
