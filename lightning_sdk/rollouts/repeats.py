"""Repeats: whether a reward function gives the same number for the same answer, asked while rollouts run.

Some of the first answers are scored a second time, outside of every rollout, when later ones are scored. A function
that is slow, that raises then, or whose answers are not plain data is left alone, and nothing is reported.
"""

from __future__ import annotations

import functools
import inspect
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning_sdk.markers.reward import RewardFunction, as_rewards, name_of
from lightning_sdk.markers.rollout import answer_to_json
from lightning_sdk.stream import notices
from lightning_sdk.trace.scope import Scope, use_scope

#: Answers that are kept and scored again, and how many of them have to be before anything is said.
KEPT, FEWEST = 8, 4
#: How many of these have to get another number, and how far away it is, as a part of the range of all numbers.
DIFFERENT, AWAY = 2, 0.01
#: Seconds that one scoring may take.
SLOW_SECONDS = 0.05
#: Rollouts that are told of it at most: the first rounds are looked at.
_MAX_TOLD = 500


@dataclass(frozen=True, slots=True)
class _Kept:
    """One answer as it came, and what it was given."""

    pair: str
    """Task and answer as JSON."""
    given: Mapping[str, float]


class Repeats:
    """One reward function, some of whose answers are scored twice."""

    def __init__(self, reward: RewardFunction) -> None:
        self._reward, self._lock = reward, threading.Lock()
        self._kept: list[_Kept] = []
        self._low = self._high = 0.0
        self._again = self._different = self._told = 0
        self._example = (0.0, 0.0)
        self._over = False
        """Nothing is scored again any more."""

    @property
    def reward(self) -> RewardFunction:
        """The same function, listened to."""
        function = self._reward.function

        @functools.wraps(function)
        def wrapper(task: dict[str, Any], answer: Any) -> Any:
            self._tell()
            if self._over:
                return function(task, answer)
            pair, began = _pair(task, answer), time.perf_counter()
            value = function(task, answer)
            if inspect.isawaitable(value):
                return self._later(value, pair, began)
            if (due := self._keep(pair, value, time.perf_counter() - began)) is not None:
                self._compare(due, lambda: function(*json.loads(due.pair)))
            return value

        wrapper.__name__ = name_of(function)
        return replace(self._reward, function=wrapper)

    async def _later(self, value: Any, pair: str, began: float) -> Any:
        given = await value
        if (due := self._keep(pair, given, time.perf_counter() - began)) is not None:
            try:
                with use_scope(Scope()):
                    second = await self._reward.function(*json.loads(due.pair))
                self._compare(due, lambda: second)
            except Exception:  # of the reward, for an answer that it has had before: it is left alone
                self._over = True
        return given

    def _keep(self, pair: str, value: Any, seconds: float) -> _Kept | None:
        """Keep one of the first answers; one that is to be scored again now, if there is one."""
        given = _numbers(value)
        with self._lock:
            self._over |= not given or seconds > SLOW_SECONDS
            if self._over:
                return None
            every = [*given.values(), *((self._low, self._high) if self._kept else ())]
            self._low, self._high = min(every), max(every)
            if len(self._kept) < KEPT:
                # One without a pair holds its place, so that what is not plain data is not waited for.
                self._kept.append(_Kept(pair, given))
                return None
            if self._again >= len(self._kept):
                self._over = True
                return None
            due = self._kept[self._again]
            self._again += 1
            self._over |= not due.pair
            return due if due.pair else None

    def _compare(self, kept: _Kept, score: Callable[[], Any]) -> None:
        """Score an answer again. Whatever the function does not like about it, nothing is said of it then."""
        try:
            with use_scope(Scope()):
                second = _numbers(score())
        except Exception:
            self._over = True
            return
        apart = [
            (abs(second[role] - first), first, second[role]) for role, first in kept.given.items() if role in second
        ]
        far, first, other = max(apart, default=(0.0, 0.0, 0.0))
        with self._lock:
            if far > AWAY * (self._high - self._low) and far > 1e-6 * abs(first):
                self._different += 1
                self._example = first, other

    def _tell(self) -> None:
        with self._lock:
            sure = self._again >= FEWEST and self._different >= DIFFERENT and self._told < _MAX_TOLD
            self._told += sure
        if sure:
            notices.report_not_repeatable(self._reward.label, self._again, self._different, *self._example)


def listen(rewards: tuple[RewardFunction, ...]) -> tuple[RewardFunction, ...]:
    """The same functions, each of which is asked some answers twice."""
    return tuple(Repeats(each).reward for each in rewards)


def _pair(task: dict[str, Any], answer: Any) -> str:
    """Both as JSON; '' if they would not come back as they were."""
    kept, _ = answer_to_json([task, answer])
    return kept if kept and json.loads(kept) == [task, answer] else ""


def _numbers(value: Any) -> dict[str, float]:
    """Role -> number; empty for what is none."""
    try:
        return as_rewards(value, "the reward")
    except Exception:  # told where it is scored for the rollout
        return {}
