"""A stored attempt: one try at a rollout as the store has it; its calls are in the log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sdk.trace.call import Status

ATTEMPT_COLUMNS = "key, id, attempt, mode, task_id, grp, status, error, started, ended"
"""The columns of the table `rollouts` that `StoredAttempt.from_row` takes, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAttempt:
    """One attempt that is over, without its calls."""

    key: bytes
    id: str
    """The rollout's."""
    attempt: int
    mode: str
    task_id: int
    group: str
    status: Status
    error: str
    started: float | None
    """Unix time in seconds, as `ended`."""
    ended: float | None

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> StoredAttempt:
        """The attempt of a row with `ATTEMPT_COLUMNS`."""
        key, id_, attempt, mode, task_id, group, status, error, started, ended = row
        return cls(
            key=key,
            id=id_,
            attempt=attempt,
            mode=mode,
            task_id=task_id,
            group=group,
            status=Status(status),
            error=error,
            started=started,
            ended=ended,
        )

    @property
    def step(self) -> int | None:
        """The step that a training rollout was made for."""
        found = re.match(r"(\d+)-", self.group) if self.mode == "train" else None
        return int(found[1]) if found else None
