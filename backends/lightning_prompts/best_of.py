"""Best of k: how much the highest of k mean scores exceeds the truth when all k are equally good."""

from __future__ import annotations

import random
from collections.abc import Sequence

_DRAWS = 2000


def expected_luck(scores: Sequence[Sequence[float]], draws: int = _DRAWS, seed: int = 0) -> float:
    """The expected lead of the best of k candidates over their mean, by chance alone.

    Under the hypothesis that candidates are equally good, those of one task can be exchanged: each task's scores are
    shuffled among the candidates, and the highest mean is compared with the mean of all. That one task is hard for all
    of them and another one easy stays as it is.

    Args:
        scores: For each candidate its score on every task, in one order.
    """
    if len(scores) < 2 or not scores[0]:
        return 0.0
    tasks = [list(each) for each in zip(*scores, strict=True)]
    average = sum(map(sum, tasks)) / (len(scores) * len(tasks))
    drawn, total = random.Random(seed), 0.0
    for _ in range(draws):
        sums = [0.0] * len(scores)
        for each in tasks:
            drawn.shuffle(each)
            for place, value in enumerate(each):
                sums[place] += value
        total += max(sums) / len(tasks) - average
    return max(total / draws, 0.0)
