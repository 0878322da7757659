"""The settings of a run that trains weights and tunes prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lightning_sdk.settings.groups import Group
from lightning_sdk.settings.ranges import AtLeast, Between, OneOf


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPhases(Group):
    """The phases of a run with `--tune prompts`: updates of the weights and searches for prompts take turns."""

    steps: Annotated[int, AtLeast(1)] = 4
    """Number of steps in one phase: updates of the weights, or at most as many rounds of a search for prompts."""
    selection: Annotated[float, Between(0, 1, "()")] = 0.25
    """Fraction of the training tasks on which phases are compared. They are used for nothing else."""
    cost: Annotated[str, OneOf("rollouts", "seconds")] = "rollouts"
    """What a phase costs. The next one is of the kind whose last one gained more for it; with 'seconds' the choice
    depends on the machine."""
