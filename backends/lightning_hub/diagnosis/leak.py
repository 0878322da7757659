"""Leaks: prompts that hold the answer that the reward compares with, so that there is nothing to learn but copying.

A field of the task counts as the answer if its name says so, or if the best rollouts answered exactly that. It leaks
if it is in the messages of the first call in nearly every task, although nothing else in the task holds it, and other
tasks' answers are not: a context to search, a list to choose from or a number that is in every prompt is not a leak.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.breaks import request_texts, sampled_messages
from lightning_hub.trajectories.rewards import score
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.settings import Settings

#: Fields that hold the answer, whatever the task.
NAMES = frozenset({
    "answer", "answers", "correct_answer", "expected_answer", "final_answer", "gold", "gold_answer", "golden_answer",
    "ground_truth", "groundtruth", "label", "reference_answer", "solution",
})  # fmt: skip
#: Least share of tasks whose prompt holds their own answer, greatest share of other tasks' answers in a prompt, and
#: greatest chance of finding as many by accident.
OWN, OTHERS, CHANCE = 0.9, 0.3, 1e-3
#: Fewest different tasks in which the answer is nowhere else.
TASKS = 3
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Leak:
    """A field of the task that is in the prompt."""

    field: str
    tasks: int
    """Different tasks that could be judged."""
    held: int
    """Of these, tasks whose first prompt holds the field's value."""
    others: float
    """Share of the other tasks' values that a prompt holds."""
    example: str
    """A value."""


def find_leaks(rollouts: Sequence[Rollout], tasks: Mapping[int, Mapping[str, Any]], settings: Settings) -> list[Leak]:
    """Fields of the tasks of these rollouts that leak."""
    prompts: dict[int, str] = {}
    for rollout in rollouts:
        if rollout.task_id in tasks and rollout.task_id not in prompts and (text := _prompt(rollout)):
            prompts[rollout.task_id] = text
    chosen = {task: tasks[task] for task in prompts}
    found = (_find_leak(name, chosen, prompts) for name in _candidates(rollouts, chosen, settings))
    return [each for each in found if each is not None]


def _prompt(rollout: Rollout) -> str:
    """All messages of the first trainable call."""
    first = next((call for call in rollout.calls if call.meta.trainable), None)
    return "" if first is None else "\n".join(request_texts(first))


def _candidates(rollouts: Sequence[Rollout], tasks: Mapping[int, Mapping[str, Any]], settings: Settings) -> list[str]:
    """Fields that hold the answer."""
    fields = dict.fromkeys(name for task in tasks.values() for name in task)
    answered: dict[str, set[int]] = {}
    scores = {rollout.id: score(rollout, settings) for rollout in rollouts}
    known = [value for value in scores.values() if not math.isnan(value)]
    for rollout in rollouts:
        best = known and min(known) < max(known) == scores[rollout.id]
        task, said = tasks.get(rollout.task_id), _last_answer(rollout)
        if best and task is not None and said:
            for name, value in task.items():
                if _text(value) and _normalize(_text(value)) == said:
                    answered.setdefault(name, set()).add(rollout.task_id)
    return [name for name in fields if name.lower() in NAMES or len(answered.get(name, ())) > 1]


def _last_answer(rollout: Rollout) -> str:
    last = next((call for call in reversed(rollout.calls) if call.meta.trainable), None)
    messages = sampled_messages(last) if last is not None else []
    content = messages[0].get("content") if messages else None
    return _normalize(content) if isinstance(content, str) else ""


def _find_leak(name: str, tasks: Mapping[int, Mapping[str, Any]], prompts: Mapping[int, str]) -> Leak | None:
    values = {task: value for task in tasks if (value := _isolated_value(tasks[task], name))}
    held = {task for task, value in values.items() if _holds(prompts[task], value)}
    others = [
        _holds(prompts[task], other) for task, value in values.items() for other in values.values() if other != value
    ]
    different = len({values[task] for task in held})
    if different < TASKS or not others or len(held) < OWN * len(values):
        return None
    share = sum(others) / len(others)
    # With a guess of one half for what was not seen among so few.
    if share > OTHERS or max(share, 1 / (len(others) + 2)) ** different > CHANCE:
        return None
    return Leak(name, len(values), len(held), share, next(values[task] for task in held))


def _isolated_value(task: Mapping[str, Any], name: str) -> str:
    """The field's value as text; '' if there is none, or if something else in the task holds it."""
    value = _text(task.get(name))
    if not value or len(value) > _LONGEST:
        return ""
    rest = " \n ".join(_texts([each for field, each in task.items() if field != name]))
    return "" if _holds(rest, value) else value


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for name, each in value.items() for text in (str(name), *_texts(each))]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return [] if value is None else [str(value)]


def _holds(text: str, value: str) -> bool:
    """Whether the value stands in the text by itself: 5 is not in 15, nor in 5.2 or -5."""
    before, after = (r"(?<![\w.\-])" if value[0].isalnum() else ""), (r"(?!\w|\.\d)" if value[-1].isalnum() else "")
    return re.search(f"{before}{re.escape(value)}{after}", text, re.IGNORECASE) is not None


def _normalize(text: str) -> str:
    return " ".join(text.split()).casefold()


def finding(leak: Leak) -> Finding:
    """The finding about a leak."""
    shown = leak.example if len(leak.example) <= 40 else leak.example[:37] + "..."
    return Finding(
        kind="answer in the prompt",
        severity=Severity.WARNING,
        what=f"the task's field {leak.field!r} is in the messages of the first call in {leak.held} of {leak.tasks} "
        "tasks "
        f"(such as {shown!r}), and nothing else in these tasks holds it; a prompt holds {leak.others:.0%} of other "
        f"tasks' {leak.field!r}.",
        cause="A model that sees the answer learns to copy it, and scores well until it does not see it.",
        remedy=f"Leave task[{leak.field!r}] out of the messages; if the agent is meant to see it, ignore this.",
    )
