"""Looks: how often a run's held-out score is compared with the one before training, and the error of each comparison.

A run that is looked at repeatedly until it is better is found better by chance alone. So all comparisons of a run
share one error: of runs that learned nothing, at most a part `ERROR` is ever called better, however often they are
evaluated or resumed. The comparison that was planned from the beginning has most of it; each further one gets a part of
the rest, so that their number is not limited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ERROR = 0.025
#: Share of the error that the planned comparison has: the first 'after', at the step at which the run was to end.
PLANNED = 0.9


@dataclass(frozen=True, slots=True)
class Look:
    """One comparison of a run's held-out score with the one before training."""

    number: int = 1
    """Its number in the life of the run, from 1."""
    share: float = PLANNED
    """Its share of the error."""

    @property
    def level(self) -> float:
        """Confidence of its interval: all intervals of a run hold together with 1 - 2 ERROR."""
        return 1 - 2 * ERROR * self.share


PLANNED_LOOK = Look()


def next_look(name: str, step: int, evaluations: Sequence[Mapping[str, Any]]) -> Look:
    """The look that an evaluation of this name after this step is. `evaluations`: all before it, as in
    evaluations.jsonl, those that a resume has cut away included."""
    done = [line for line in evaluations if line["name"] != "before"]
    planned_step = next((line.get("planned_step") for line in evaluations), step)
    used = any(line["look"]["share"] == PLANNED for line in done)
    if name == "after" and not used and (not done or step == planned_step):
        return Look(len(done) + 1)
    further = len(done) - used + 1
    return Look(len(done) + 1, (1 - PLANNED) / (further * (further + 1)))
