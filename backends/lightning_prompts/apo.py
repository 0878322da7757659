"""Beam search with textual gradients, after ProTeGi (arXiv:2305.03495), with the races of CAPO (arXiv:2504.16005).

A round criticises each candidate of the beam on a few tasks, edits it as each critique says, and races all of them on
the selection tasks, in blocks: one that is behind as many others as the beam holds runs no further block.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from lightning_prompts.candidate import PromptCandidate
from lightning_prompts.ending import SearchEnd, Why
from lightning_prompts.problem import Problem
from lightning_prompts.races import differences, is_ahead
from lightning_sdk.results.quantity import quantity
from lightning_sdk.rollouts.tasks import Task

_IDLE_ROUNDS = 3
"""Rounds in a row without a candidate to try."""


class Apo:
    """The algorithm 'apo'."""

    def run(self, problem: Problem) -> None:
        drawn, beam, idle = random.Random(problem.options.seed), [problem.pool.seed], 0
        while idle < _IDLE_ROUNDS:
            problem.begin_round()
            children = _children(problem, beam, drawn)
            idle = 0 if children else idle + 1
            if children:
                beam = _best(problem, beam, children)
            problem.end_round()
        raise SearchEnd(
            Why.EXHAUSTED, f"in {idle} rounds in a row no candidate came up that had not been tried or could be"
        )


def _children(problem: Problem, beam: Sequence[PromptCandidate], drawn: random.Random) -> list[PromptCandidate]:
    """New candidates: critiques side by side, then edits side by side."""
    plans = _plans(problem, beam, drawn)
    problem.scorer.evaluate([(parent, task) for parent, _, tasks in plans for task in tasks])
    plans = [each for each in plans if not _is_solved(problem, each[0], each[2])]
    asked = [problem.ask_for_critique(*plan) for plan in plans]
    critiques = [problem.reflector.end(each) for each in asked]
    edits = [
        (parent, name, problem.ask_for_edit(parent, name, said))
        for (parent, name, _), said in zip(plans, critiques, strict=True)
        if said
    ]
    made = [problem.read_proposal(parent, {name: question}, "edit") for parent, name, question in edits]
    return [each for each in made if each is not None]


def _plans(
    problem: Problem, beam: Sequence[PromptCandidate], drawn: random.Random
) -> list[tuple[PromptCandidate, str, list[Task]]]:
    """Parent, component and tasks of each proposal of a round: parents and components in turns."""
    names, tasks, options = list(problem.components), problem.parts.reflection, problem.options
    first = (problem.pool.round - 1) * options.proposals
    return [
        (
            beam[place % len(beam)],
            names[(first + place // len(beam)) % len(names)],
            drawn.sample(tasks, min(options.minibatch, len(tasks))),
        )
        for place in range(options.proposals)
    ]


def _is_solved(problem: Problem, candidate: PromptCandidate, tasks: Sequence[Task]) -> bool:
    scores = problem.scorer.scores(candidate, tasks)
    return all(each is not None and each >= problem.options.perfect for each in scores)


def _best(
    problem: Problem, beam: Sequence[PromptCandidate], children: Sequence[PromptCandidate]
) -> list[PromptCandidate]:
    """The beam of the next round."""
    options, tasks, scorer = problem.options, problem.parts.selection, problem.scorer
    running = list({each.id: each for each in (*beam, *children)}.values())
    for end in range(options.block, len(tasks) + options.block, options.block):
        seen = tasks[:end]
        scorer.evaluate([(each, task) for each in running for task in seen])
        running = [each for each in running if not _is_beaten(problem, each, running, seen)]
    whole = {each.id for each in running}
    fails = scorer.failures(problem.pool.seed, tasks)
    for child in children:
        if child.id not in whole:
            problem.pool.judge(child, False, f"behind {options.beam} others before the end of the race")
        elif scorer.failures(child, tasks) > fails:
            problem.pool.judge(child, False, "the agent fails more often with it")
        else:
            ahead = differences(scorer, child, problem.pool.seed, tasks)
            better = is_ahead(ahead)
            said = f"{math.fsum(ahead) / max(len(ahead), 1):+.3f} over the seed on {quantity(len(ahead), 'task')}"
            problem.pool.judge(child, better, said if better else f"not shown to be better: {said}")
    return sorted(running, key=problem.worth, reverse=True)[: options.beam]


def _is_beaten(
    problem: Problem, candidate: PromptCandidate, running: Sequence[PromptCandidate], tasks: Sequence[Task]
) -> bool:
    """Whether as many candidates as the beam holds are ahead of this one."""
    penalty = problem.options.length_penalty
    ahead = sum(
        is_ahead(differences(problem.scorer, other, candidate, tasks, penalty))
        for other in running
        if other is not candidate
    )
    return ahead >= problem.options.beam
