"""Probing: whether the rewards depend on the task at all, tested by scoring answers with the data of other tasks.

It happens after the rollouts, in the agent's process, and never in training. A reward function that is slow, does not
return the same number twice, raises an exception, or gets answers that are not plain data is not probed, and nothing is
reported.
"""

from __future__ import annotations

import copy
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.markers.reward import RewardFunction, RewardValue
from lightning_sdk.markers.rollout import answer_to_json
from lightning_sdk.rollouts.scoring import scores

#: Seconds that one scoring may take, and all of them together.
SLOW_SECONDS, LONGEST_SECONDS = 0.05, 5.0
#: Answers that are tried, and other tasks for each.
ANSWERS, OTHERS = 3, 100
#: Fewest trials, and other tasks, that say something: where it is known that these have another answer, and where not.
KNOWN, UNKNOWN = (12, 6), (30, 15)
#: Fields that hold the answer in most lists of tasks: tasks with the same one cannot tell.
_ANSWER_FIELDS = ("answer", "answers", "label", "solution", "ground_truth", "target", "expected")


@dataclass(frozen=True, slots=True)
class _Seen:
    """One answer, as the first reward function got it."""

    task: dict[str, Any]
    answer: str
    """As JSON."""
    given: dict[str, float]
    """Name and role -> what it was given, as far as it can be known without waiting for it."""
    seconds: float


class RewardProbe:
    """Reward functions, and what they were asked while the rollouts ran."""

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        self._rewards = tuple(rewards)
        self._seen: list[_Seen] = []
        self._unkept = False

    @property
    def rewards(self) -> tuple[RewardFunction, ...]:
        """The same functions, of which the first one is listened to."""
        first, *rest = self._rewards
        return replace(first, function=self._listen(first.function)), *rest

    def finding(self, tasks: Sequence[Mapping[str, Any]]) -> Finding | None:
        """What is wrong if the rewards are the same whatever the task; None if they are not, or nobody knows."""
        if self._unkept or not self._seen or max(each.seconds for each in self._seen) > SLOW_SECONDS:
            return None
        said: list[Finding | None] = []
        # In a thread, so that a reward that hangs holds nobody up.
        thread = threading.Thread(target=lambda: said.append(self._probe(tasks)), name="lightning-probe", daemon=True)
        thread.start()
        thread.join(LONGEST_SECONDS + 1.0)
        return said[0] if said else None

    def _listen(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(task: dict[str, Any], answer: Any) -> Any:
            kept, _ = answer_to_json(answer)
            own, began = copy.deepcopy(task), time.perf_counter()
            value = function(task, answer)
            self._unkept |= not kept
            given = {"": float(value)} if isinstance(value, int | float) else {}
            self._seen.append(_Seen(own, kept, given, time.perf_counter() - began))
            return value

        return wrapper

    def _probe(self, tasks: Sequence[Mapping[str, Any]]) -> Finding | None:
        try:
            return self._probe_until(tasks, time.monotonic() + LONGEST_SECONDS)
        except Exception:  # of the reward: whatever it did not like, it looked at
            return None

    def _probe_until(self, tasks: Sequence[Mapping[str, Any]], deadline: float) -> Finding | None:
        first = self._rewards[0].name
        own: dict[int, dict[str, float]] = {}
        for number, seen in enumerate(self._seen):
            began = time.monotonic()
            own[number] = self._score(seen.task, seen)
            again = self._score(seen.task, seen)
            before = seen.given.get("", own[number].get(first))
            if own[number] != again or before != own[number].get(first, before) or time.monotonic() > deadline:
                return None
            if time.monotonic() - began > 2 * SLOW_SECONDS:
                return None
        best = self._best(own)
        trials, others = 0, set[str]()
        for number in best:
            seen = self._seen[number]
            for task in _other(seen.task, tasks):
                if time.monotonic() > deadline:
                    break
                if self._score(task, seen) != own[number]:
                    return None
                trials += 1
                others.add(_text(task))
        fewest = KNOWN if _field(self._seen[0].task) else UNKNOWN
        if trials < fewest[0] or len(others) < fewest[1]:
            return None
        totals = [sum(each.values()) for each in own.values()]
        return _finding(trials, len(best), len(others), min(totals), max(totals), self._rewards)

    def _best(self, own: Mapping[int, Mapping[str, float]]) -> list[int]:
        """Different answers that earned the most; none if all earned the same."""
        totals = {number: sum(each.values()) for number, each in own.items()}
        if min(totals.values()) == max(totals.values()):
            return []
        found: dict[str, int] = {}
        for number in sorted(totals, key=lambda each: -totals[each]):
            if totals[number] > min(totals.values()):
                found.setdefault(self._seen[number].answer, number)
        return list(found.values())[:ANSWERS]

    def _score(self, task: Mapping[str, Any], seen: _Seen) -> dict[str, float]:
        given: list[RewardValue] = scores(self._rewards, copy.deepcopy(dict(task)), json.loads(seen.answer))
        return {f"{each.name}{'/' if each.role else ''}{each.role}": each.value for each in given}


def _other(own: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Different tasks whose answer is another one, where it is known, evenly from the list."""
    field = _field(own)
    different = {
        _text(task): task
        for task in tasks
        if _text(task) != _text(own) and not (field and task.get(field) == own[field])
    }
    every = max(1, len(different) // OTHERS)
    return list(different.values())[::every][:OTHERS]


def _field(task: Mapping[str, Any]) -> str:
    """The field that holds the answer, '' if it is not known."""
    return next((name for name in _ANSWER_FIELDS if name in task), "")


def _text(task: Mapping[str, Any]) -> str:
    return json.dumps(task, sort_keys=True, default=str)


def _finding(
    trials: int, best: int, others: int, low: float, high: float, rewards: Sequence[RewardFunction]
) -> Finding:
    many = "the best answer" if best == 1 else f"the {best} best answers"
    return Finding(
        kind="reward ignores the task",
        severity=Severity.WARNING,
        what=f"{many} earned exactly the same under the data of {others} other tasks ({trials} of {trials} times), "
        f"although the reward tells answers apart ({low:g} to {high:g}).",
        cause=f"{' and '.join(each.label for each in rewards)} looks at the form of an answer, and not at whether "
        "it is right for its task.",
        remedy="Compare the answer with the task's data in the reward, such as task['answer']; if the form is all "
        "that you want, ignore this.",
    )
