"""The draw of a share of the tasks, which depends on a seed and the tasks' content, not on their order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lightning_sdk.rollouts.tasks import Task, task_id, unique


def draw_share(tasks: Sequence[Task], share: float, seed: int) -> tuple[list[Task], list[Task]]:
    """This share of the different tasks, and the others; at least one task in each.

    Args:
        tasks: At least two different ones.
    """
    different = unique(tasks)
    order = sorted(different, key=lambda task: hashlib.sha256(f"{seed}/{task_id(task)}".encode()).digest())
    count = min(max(1, round(share * len(order))), len(order) - 1)
    return order[:count], order[count:]
