"""The credit of one rollout, computed again from what is stored by the functions that the training used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_dashboard.attempt_reader import ReadAttempt
from lightning_dashboard.rollout_table import RolloutColumns
from lightning_dashboard.run_reader import RunReader
from lightning_hub.credit.advantages import RoleAdvantages, estimate_advantages, needs_whole_batch
from lightning_hub.credit.batch import rewarded_role_rollouts, rollouts_to_train
from lightning_hub.health.run_record import role_name
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.storage.attempts import StoredAttempt
from lightning_hub.trajectories.role_rollout import RoleRollout, role_rollouts
from lightning_sdk.errors import LightningError
from lightning_sdk.trace.call import Status

#: Rollouts of a step that are read back for one answer.
_MOST_ROLLOUTS = 4096
_LIVE = frozenset({"queued", "running"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleCredit:
    """One role in one rollout, and what its tokens are credited with."""

    role_rollout: RoleRollout
    advantages: Sequence[NDArray[np.float32]] | None
    """[T] for each trajectory; None where they cannot be computed."""
    missing: str = ""
    """Why they cannot."""


class ReadCredit:
    """The credit of rollouts that were compared with each other: of a group, or of a whole step."""

    def __init__(self, run: RunReader, rollouts: Sequence[Rollout]) -> None:
        """`rollouts`: all that the credit of any of them depends on."""
        self._run, self._settings = run, run.rollouts().settings
        used = rollouts_to_train(rollouts, self._settings)
        found, _ = role_rollouts(used, self._settings)
        self._compared = rewarded_role_rollouts(used, found, self._settings)
        self._made: dict[str, list[RoleAdvantages] | str] = {}

    def of(self, own: Rollout) -> list[RoleCredit]:
        """Each role that made a trained call in one of them, in the order of their first calls."""
        found, _ = role_rollouts([own], self._settings)
        return [self._of_role(each) for each in found]

    def _of_role(self, own: RoleRollout) -> RoleCredit:
        if own.rollout.mode != "train":
            return RoleCredit(role_rollout=own, advantages=None, missing=_NOT_TRAINED)
        compared = [each for each in self._compared if each.role == own.role]
        if not any(each.rollout.id == own.rollout.id for each in compared):
            ended_ok = own.rollout.status == Status.OK
            missing = "it has no reward for this role" if ended_ok else "a failed rollout is not trained on"
            return RoleCredit(role_rollout=own, advantages=None, missing=missing)
        if own.role not in self._made:
            self._made[own.role] = self._estimate(compared)
        made = self._made[own.role]
        if isinstance(made, str):
            return RoleCredit(role_rollout=own, advantages=None, missing=made)
        mine = next(each for each in made if each.role_rollout.rollout.id == own.rollout.id)
        return RoleCredit(role_rollout=mine.role_rollout, advantages=mine.advantages)

    def _estimate(self, compared: list[RoleRollout]) -> list[RoleAdvantages] | str:
        """The advantages of one role, or why they cannot be computed."""
        try:
            return estimate_advantages(compared, self._settings, _means(self._run, compared[0]), None)
        except LightningError as error:
            return f"they depend on numbers of the model that are not kept ({error})"


_NOT_TRAINED = "it is not a rollout of the training, so nothing was credited"


def read_credit(run: RunReader, read: ReadAttempt) -> list[RoleCredit]:
    """Each role that made a trained call in an attempt, in the order of their first calls."""
    own = as_rollout(read)
    columns = run.rollouts()
    settings = columns.settings
    roles = {call.meta.role for call in own.calls if call.meta.trainable}
    whole = any(needs_whole_batch(settings, settings.credit_of(role)) for role in roles)
    places = compared_places(columns, columns.ids.index(own.id), whole)
    return ReadCredit(run, [own, *read_rollouts(run, columns, places, {own.id})]).of(own)


def as_rollout(read: ReadAttempt) -> Rollout:
    """An attempt in the form that credit is computed from."""
    attempt = read.attempt
    status = Status.INFRASTRUCTURE_ERROR if attempt.status in _LIVE else Status(attempt.status)
    return Rollout(
        id=attempt.id,
        task_id=attempt.task_id,
        group=attempt.group,
        mode=attempt.mode,
        attempt=attempt.attempt,
        status=status,
        error=attempt.error,
        seconds=0.0,
        rewards=tuple(
            EarnedReward(each.role, each.name, float(each.value), each.time_ns, each.why)
            for each in read.rewards
            if each.counts and each.value is not None
        ),
        calls=read.calls,
    )


def compared_places(columns: RolloutColumns, place: int, whole: bool) -> list[int]:
    """The rollouts that the credit of one depends on, itself among them: of its group, or of its `whole` step."""
    same = columns.steps == columns.steps[place] if whole else columns.groups == columns.groups[place]
    mask = same & (columns.modes == "train") & columns.last_attempts()
    return list(np.flatnonzero(mask)[:_MOST_ROLLOUTS].tolist())


def read_rollouts(
    run: RunReader, columns: RolloutColumns, places: Iterable[int], without: Collection[str]
) -> list[Rollout]:
    """The rollouts in these places, without those with these ids and those that cannot be read back."""
    with run.archive() as archive:
        return list(archive.rollouts(_entry(columns, each) for each in places if columns.ids[each] not in without))


def _entry(columns: RolloutColumns, place: int) -> StoredAttempt:
    status = columns.statuses[place]
    return StoredAttempt(
        key=columns.keys[place],
        id=columns.ids[place],
        attempt=int(columns.attempts[place]),
        mode=columns.modes[place],
        task_id=int(columns.tasks[place]),
        group=columns.groups[place],
        status=Status.INFRASTRUCTURE_ERROR if status in _LIVE else Status(status),
        error="",
        started=None,
        ended=None,
    )


def _means(run: RunReader, own: RoleRollout) -> dict[str, float]:
    """Role -> running mean of its rewards before the rollout's step."""
    before = _metrics_before(run, own.rollout.group)
    names = ((name.partition("/"), value) for name, value in before.items())
    return {role_name(role): value for (what, _, role), value in names if what == "running_mean" and value is not None}


def _metrics_before(run: RunReader, group: str) -> Mapping[str, float | None]:
    step = group.partition("-")[0]
    earlier = [each for each in run.steps() if step.isdigit() and int(each["step"] or 0) < int(step)]
    return earlier[-1] if earlier else {}
