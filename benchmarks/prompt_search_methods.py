"""The searches of `prompt_search.py` that run in this process: ours, and plain gepa."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import gepa
from gepa.core.adapter import EvaluationBatch, GEPAAdapter
from prompt_search_task import BASE, SearchTask, SqlQuestion

from lightning_prompts.apo import Apo
from lightning_prompts.arena import RoleTurn, Trial, TrialResult
from lightning_prompts.asking import FunctionModel
from lightning_prompts.candidate import Component
from lightning_prompts.journal import Journal
from lightning_prompts.ledger import Allowance
from lightning_prompts.parts import TaskParts
from lightning_prompts.problem import Problem, SearchOptions
from lightning_prompts.reflective import Reflective
from lightning_prompts.search import Hooks, choose, run_search
from lightning_sdk.prompts.text_check import TextCheck

Trace = list[tuple[int, str]]
"""Rollouts spent, and the instruction that the search would choose then."""


def ask(url: str, model: str, system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    body = {"model": model, "messages": [*messages, {"role": "user", "content": user}]}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return str(json.loads(reply.read())["choices"][0]["message"]["content"])


def answer(url: str, instruction: str, question: SqlQuestion) -> str:
    return ask(url, "agent", instruction, question.question)


class _Arena:
    """Runs our trials."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, trials: Sequence[Trial], on_result: Callable[[Trial, TrialResult], None]) -> None:
        for trial in trials:
            question = SqlQuestion(**trial.task)
            said = answer(self._url, trial.candidate.texts["writer"], question)
            turn = RoleTurn("writer", question.question, said)
            on_result(trial, TrialResult(score=question.grade(said), turns=(turn,), calls=1, tokens=2))


def run_ours(name: str, url: str, task: SearchTask, budget: int, seed: int) -> Trace:
    """One of our algorithms, with its default settings."""
    parts, trace, problems = task.parts(), Trace(), list[Problem]()

    def note(_trial: Trial, _result: TrialResult) -> None:
        (problem,) = problems
        if problem.ledger.spent.rollouts >= len(task.selection):
            trace.append((problem.ledger.spent.rollouts, choose(problem).texts["writer"]))

    run_search(
        Apo() if name == "apo" else Reflective(),
        components=[Component("writer", ("writer",), BASE)],
        parts=TaskParts(parts["reflection"], parts["selection"]),
        arena=_Arena(url),
        model=FunctionModel(lambda asked: ask(url, f"reflector/{name}/{seed}", "", asked)),
        journal=Journal(),
        options=SearchOptions(seed=seed),
        allowance=Allowance(rollouts=budget),
        check=TextCheck([]),
        hooks=Hooks(on_problem=problems.append, on_result=note, on_round=lambda _: trace.append(_choice(problems[0]))),
    )
    return [*trace, _choice(problems[0])]


def _choice(problem: Problem) -> tuple[int, str]:
    return problem.ledger.spent.rollouts, choose(problem).texts["writer"]


class _GepaAdapter(GEPAAdapter[SqlQuestion, tuple[SqlQuestion, str], str]):
    """What plain gepa needs; it asks the reflecting model itself."""

    propose_new_texts = None

    def __init__(self, url: str) -> None:
        self._url = url

    def evaluate(
        self, batch: list[SqlQuestion], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[tuple[SqlQuestion, str], str]:
        said = [answer(self._url, candidate["writer"], each) for each in batch]
        scores = [question.grade(each) for question, each in zip(batch, said, strict=True)]
        return EvaluationBatch(outputs=said, scores=scores, trajectories=list(zip(batch, said, strict=True)))

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: EvaluationBatch[Any, str], components_to_update: list[str]
    ) -> dict[str, list[dict[str, Any]]]:
        rows = zip(eval_batch.trajectories or (), eval_batch.scores, strict=True)
        shown = [
            {"Inputs": question.question, "Generated Outputs": said, "Feedback": f"score {score}"}
            for (question, said), score in rows
        ]
        return dict.fromkeys(components_to_update, shown)


def run_gepa(url: str, task: SearchTask, budget: int, seed: int) -> Trace:
    """The library as it is, with its own budget and acceptance."""

    class Silent:
        def log(self, message: str) -> None:
            pass

    found = gepa.optimize(
        seed_candidate={"writer": BASE},
        trainset=task.reflection,
        valset=task.selection,
        adapter=_GepaAdapter(url),
        reflection_lm=lambda asked: ask(url, f"reflector/gepa/{seed}", "", str(asked)),
        reflection_minibatch_size=3,
        max_metric_calls=budget,
        seed=seed,
        logger=Silent(),
    )
    rows = zip(found.discovery_eval_counts, found.val_aggregate_scores, found.candidates, strict=True)
    trace, best = Trace(), float("-inf")
    for rollouts, score, texts in rows:
        if score > best:
            best = score
            # The library counts what was spent before a candidate ran on the selection tasks; it is chosen after that.
            trace.append((int(rollouts) + len(task.selection), texts["writer"]))
    return trace
