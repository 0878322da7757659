"""The parts of the training tasks: some to reflect on, some to select with. Held-out tasks are in neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_hub.rollouts.task_draw import draw_share
from lightning_sdk.errors import TaskError
from lightning_sdk.rollouts.tasks import Task, unique


@dataclass(frozen=True, slots=True)
class TaskParts:
    """Two lists that have no task in common."""

    reflection: list[Task]
    """Shown to the reflecting model, with what the agent did on them."""
    selection: list[Task]
    """Scored to choose between candidates; never shown to the reflecting model."""


def divide_tasks(tasks: Sequence[Task], share: float, seed: int) -> TaskParts:
    """Divide tasks by a draw that depends on the seed and the tasks' content, not on their order.

    Args:
        share: Fraction to reflect on, of the different tasks.

    Raises:
        TaskError: fewer than two different tasks.
    """
    different = unique(tasks)
    if len(different) < 2:
        raise TaskError(
            "tuning prompts needs at least 2 different training tasks, one to reflect on and one to select with; "
            f"there is {len(different)}: give more tasks"
        )
    return TaskParts(*draw_share(different, share, seed))
