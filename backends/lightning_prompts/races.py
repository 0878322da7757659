"""Races: whether one candidate is better than another on the same tasks, tested in pairs.

The test is Fisher's: under the hypothesis that both are equally good, each task's difference is as likely with the
other sign. As in CAPO (arXiv:2504.16005, section 3) candidates are scored on one block of tasks after the other, and
those that fall behind run no further ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from lightning_prompts.candidate import PromptCandidate
from lightning_prompts.scorer import TrialScorer
from lightning_sdk.results.quantity import quantity
from lightning_sdk.rollouts.tasks import Task

LEVEL = 0.25
"""Largest probability of the seen lead under the hypothesis at which a candidate counts as ahead or behind."""
_MOST_EXACT = 12
"""Differences up to which all signs are tried."""


def chance(differences: Sequence[float]) -> float:
    """Probability of a sum at least as high if both were equally good; one-sided. 1 if there is no difference."""
    own = [each for each in differences if each]
    total = math.fsum(own)
    if not own:
        return 1.0
    if len(own) > _MOST_EXACT:
        return 1 - NormalDist().cdf(total / math.sqrt(math.fsum(each * each for each in own)))
    sums = (math.fsum(sign * abs(each) for sign, each in zip(signs, own, strict=True)) for signs in _signs(len(own)))
    return sum(each >= total - 1e-12 for each in sums) / (1 << len(own))


def _signs(count: int) -> itertools.product[tuple[int, ...]]:
    return itertools.product((-1, 1), repeat=count)


def is_ahead(differences: Sequence[float], level: float = LEVEL) -> bool:
    """Whether a candidate with these differences to another one is taken to be better: it wins where they differ, or
    so often that chance would seldom do it."""
    if math.fsum(differences) <= 0:
        return False
    return min(differences) >= 0 or chance(differences) <= level


def is_behind(differences: Sequence[float], level: float = LEVEL) -> bool:
    return is_ahead([-each for each in differences], level)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a race ended for one candidate."""

    accepted: bool
    reason: str
    """In words."""


def differences(
    scorer: TrialScorer, child: PromptCandidate, parent: PromptCandidate, tasks: Sequence[Task], penalty: float = 0.0
) -> list[float]:
    """Child minus parent on the tasks where both have a score. `penalty` is what 1,000 characters more cost."""
    longer = penalty * (child.length - parent.length) / 1000
    both = zip(scorer.scores(child, tasks), scorer.scores(parent, tasks), strict=True)
    return [mine - its - longer for mine, its in both if mine is not None and its is not None]


def race(
    scorer: TrialScorer,
    pairs: Sequence[tuple[PromptCandidate, PromptCandidate]],
    tasks: Sequence[Task],
    block: int,
) -> list[Verdict]:
    """Race each child against its parent, all side by side. A child that falls behind runs no further tasks.

    Raises:
        SearchEnd: the next block does not fit what may be spent.
    """
    verdicts: dict[int, Verdict] = {}
    for end in range(block, len(tasks) + block, block):
        seen, running = tasks[:end], [place for place in range(len(pairs)) if place not in verdicts]
        if not running:
            break
        scorer.evaluate([(each, task) for place in running for each in pairs[place] for task in seen])
        for place in running:
            child, parent = pairs[place]
            ahead = differences(scorer, child, parent, seen)
            if _fails_more(scorer, child, parent, seen):
                verdicts[place] = Verdict(False, "the agent fails more often with it")
            elif is_behind(ahead):
                verdicts[place] = Verdict(
                    False, f"behind its parent after {quantity(len(ahead), 'task')}: {_mean(ahead):+.3f}"
                )
    for place, (child, parent) in enumerate(pairs):
        if place not in verdicts:
            ahead = differences(scorer, child, parent, tasks)
            said = f"{_mean(ahead):+.3f} over its parent on {quantity(len(ahead), 'task')}"
            better = is_ahead(ahead)
            verdicts[place] = Verdict(better, said if better else f"not shown to be better: {said}")
    return [verdicts[place] for place in range(len(pairs))]


def _fails_more(scorer: TrialScorer, child: PromptCandidate, parent: PromptCandidate, tasks: Sequence[Task]) -> bool:
    return scorer.failures(child, tasks) > scorer.failures(parent, tasks)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
