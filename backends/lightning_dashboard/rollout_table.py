"""The rollouts of a run by columns, in memory: 100,000 are filtered and sorted in milliseconds.

The store has no index for each way in which people look at rollouts, and another process writes it. So the narrow
columns are read once, and later only what is new.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hub.replay.stored_run import with_weights
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.storage.reading import StoreReader
from lightning_hub.trajectories.rewards import score, total_reward
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status

_LIVE = frozenset({"queued", "running"})
#: The end of an attempt may be stored so much later than that of another one that ended after it.
_LATE_SECONDS = 60.0
_STEP = re.compile(r"(\d+)-")
#: Roles, names and values of the rewards of one rollout.
_Given = tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RolloutColumns:
    """Attempts at rollouts, one in each place of every column, in the order in which they were first seen."""

    version: int
    """Another number whenever something has changed."""
    keys: Sequence[bytes]
    ids: Sequence[str]
    attempts: NDArray[np.int32]
    modes: NDArray[np.object_]
    steps: NDArray[np.int32]
    """The step that a training rollout was made for; -1 for others."""
    evaluations: NDArray[np.object_]
    """'before', 'after', 'step-N' for a rollout of an evaluation, else ''."""
    tasks: NDArray[np.int64]
    groups: NDArray[np.object_]
    group_numbers: NDArray[np.int32]
    """The same number for all rollouts of one group and mode, from 0."""
    statuses: NDArray[np.object_]
    started: NDArray[np.float64]
    """Unix time in seconds, as `ended`; NaN if it is not known."""
    ended: NDArray[np.float64]
    runners: NDArray[np.object_]
    given: NDArray[np.int32]
    """Place of its rewards in `patterns`."""
    patterns: Sequence[_Given]
    settings: Settings
    places: dict[bytes, int]
    """Key -> its place."""
    _scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def empty(cls, settings: Settings) -> RolloutColumns:
        """No rollouts."""
        return _columns(0, [], [()], [], settings, {})

    @property
    def rewarded_roles(self) -> list[str]:
        """Roles with rewards of their own."""
        return sorted({role for pattern in self.patterns for role, _, _ in pattern} - {""})

    def scores(self, role: str = "") -> NDArray[np.float64]:
        """What each earned: the role, or '' for one number for the whole rollout; NaN without a reward."""
        if role not in self._scores:
            values = np.array([self._score(each, role) for each in self.patterns])
            self._scores[role] = values[self.given]
        return self._scores[role]

    def _score(self, given: _Given, role: str) -> float:
        rollout = Rollout(
            id="",
            task_id=0,
            group="",
            mode="",
            attempt=1,
            status=Status.OK,
            error="",
            seconds=0.0,
            rewards=tuple(EarnedReward(owner, name, value, 0) for owner, name, value in given),
        )
        if not role:
            return score(rollout, self.settings)
        value = total_reward(rollout, role, self.settings.credit_of(role))
        return math.nan if value is None else value

    def last_attempts(self) -> NDArray[np.bool_]:
        """Which of them are the last attempt of their rollout."""
        last: dict[str, int] = {}
        attempts = self.attempts.tolist()
        for place, id_ in enumerate(self.ids):
            before = last.get(id_)
            if before is None or attempts[place] >= attempts[before]:
                last[id_] = place
        found = np.zeros(len(self), np.bool_)
        found[list(last.values())] = True
        return found


class RolloutTable:
    """Reads a store and what is added to it. One thread at a time."""

    def __init__(self, store: Path, settings: Settings) -> None:
        self._store, self._settings = store, settings
        self._version, self._state, self._is_new = 0, object(), True
        self._forget(0)
        self._columns = RolloutColumns.empty(settings)

    def refresh(self) -> RolloutColumns:
        """The columns as they are now."""
        with StoreReader(self._store) as reader:
            if (state := reader.state()) == self._state:
                return self._columns
            rescoring, weights = reader.rescoring()
            if rescoring != self._rescoring:
                self._forget(rescoring)
            self._take_rewards(reader)
            self._take_attempts(reader)
            self._state = state
        if not self._is_new:
            return self._columns
        self._is_new = False
        settings = with_weights(self._settings, weights)
        patterns: dict[_Given, int] = {(): 0}
        given = [patterns.setdefault(tuple(self._given.get(row[0], ())), len(patterns)) for row in self._rows]
        self._version += 1
        self._columns = _columns(self._version, self._rows, list(patterns), given, settings, dict(self._places))
        return self._columns

    def _forget(self, rescoring: int) -> None:
        self._rescoring, self._is_new = rescoring, True
        self._latest, self._last_reward = -math.inf, -1
        self._rows: list[Sequence[Any]] = []
        self._places: dict[bytes, int] = {}
        self._running: set[bytes] = set()
        self._given: defaultdict[bytes, list[tuple[str, str, float]]] = defaultdict(list)

    def _take_attempts(self, reader: StoreReader) -> None:
        missing = set(self._running)
        for row in reader.attempts_since(self._latest - _LATE_SECONDS):
            self._take(row)
            missing.discard(row[0])
        for key in missing:  # it ended long before others of which we know already
            if (found := reader.attempt(key)) is not None:
                self._take(found)

    def _take_rewards(self, reader: StoreReader) -> None:
        for number, key, role, name, value in reader.rewards_after(self._last_reward):
            self._given[key].append((role, name, value))
            self._last_reward, self._is_new = number, True

    def _take(self, row: Sequence[Any]) -> None:
        key, status, ended = row[0], row[6], row[8]
        place = self._places.setdefault(key, len(self._rows))
        if place == len(self._rows):
            self._rows.append(row)
        elif self._rows[place] == row:
            return
        self._rows[place], self._is_new = row, True
        if status in _LIVE:
            self._running.add(key)
        else:
            self._running.discard(key)
        if ended is not None:
            self._latest = max(self._latest, ended)


def _columns(
    version: int,
    rows: Sequence[Sequence[Any]],
    patterns: Sequence[_Given],
    given: Sequence[int],
    settings: Settings,
    places: dict[bytes, int],
) -> RolloutColumns:
    turned = list(zip(*rows, strict=True)) or [()] * 10
    keys, ids, attempts, modes, tasks, groups, statuses, started, ended, runners = turned
    steps, evaluations = _steps(modes, groups)
    numbers: dict[tuple[str, str], int] = {}
    return RolloutColumns(
        version=version,
        keys=keys,
        ids=ids,
        attempts=np.array(attempts, np.int32),
        modes=np.array(modes, np.object_),
        steps=steps,
        evaluations=evaluations,
        tasks=np.array(tasks, np.int64),
        groups=np.array(groups, np.object_),
        group_numbers=np.array(
            [numbers.setdefault(each, len(numbers)) for each in zip(modes, groups, strict=True)], np.int32
        ),
        statuses=np.array(statuses, np.object_),
        started=np.array(started, np.float64),
        ended=np.array(ended, np.float64),
        runners=np.array(runners, np.object_),
        given=np.array(given, np.int32),
        patterns=patterns,
        settings=settings,
        places=places,
    )


def _steps(modes: Sequence[str], groups: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """The step of each training rollout, and the evaluation of each other one, from the names of their groups."""
    steps, names = np.full(len(groups), -1, np.int32), np.full(len(groups), "", np.object_)
    for place, (mode, group) in enumerate(zip(modes, groups, strict=True)):
        if mode == "train" and (found := _STEP.match(group)):
            steps[place] = int(found[1])
        elif mode == "evaluate":
            names[place] = group.rpartition("-")[0]
    return steps, names
