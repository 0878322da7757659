"""Mixing: rollouts whose first request holds what was asked or answered in another one, because they share a memory.

An agent that is created once and remembers what it was asked carries the messages of one rollout into the next, and
into those that run at the same time. A rollout is then judged by its own task and trained on a prompt that holds
others. Whole messages are compared. What all first requests have in common (a system prompt, examples) does not count.
If they have everything in common, they end with the text of one task, which is not that of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.breaks import request_turns, sampled_messages, text_of
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.stream import notices
from lightning_sdk.trace.call import Call

#: Fewest rollouts whose first request holds a message of another one.
ROLLOUTS = 2
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class MixedRole:
    """A role whose first requests hold messages of other rollouts."""

    role: str
    rollouts: int
    """Rollouts with a request of this role."""
    mixed: int
    """How many of these have a message of another rollout in their first request."""
    example: str
    """Such a message."""
    shared: tuple[str, ...]
    """Objects that several rollouts ran, as the agent's process names them."""


def find_mixed(rollouts: Sequence[Rollout], tasks: Mapping[int, Mapping[str, Any]]) -> list[MixedRole]:
    """Roles that mix rollouts, in the order of the rollouts. `tasks` by their ids, as far as they are known."""
    roles = dict.fromkeys(call.meta.role for each in rollouts for call in each.calls)
    known = {each.task_id: tasks[each.task_id] for each in rollouts if each.task_id in tasks}
    found = (_find_mixed_role(role, rollouts, known) for role in roles)
    return [each for each in found if each is not None]


def _find_mixed_role(
    role: str, rollouts: Sequence[Rollout], tasks: Mapping[int, Mapping[str, Any]]
) -> MixedRole | None:
    calls = {each.id: [call for call in each.calls if call.meta.role == role] for each in rollouts}
    firsts = {rollout: request_turns(of_role[0]) for rollout, of_role in calls.items() if of_role}
    # The last message is the rollout's own question, also where an example asks the same before.
    everywhere = Counter(message for messages in firsts.values() for message in set(messages[:-1]))
    common = {message for message, count in everywhere.items() if count == len(firsts)}
    said, task_of = _History(rollouts, calls, firsts), {each.id: each.task_id for each in rollouts}
    texts, mixed = _own_texts(tasks), []
    for rollout, messages in firsts.items():
        task = task_of[rollout]
        given = "\n".join(_strings(tasks.get(task, {})))  # a task may hold the turns of a conversation so far
        foreign = next((text for _, text in said.of_others(rollout, messages, common) if text not in given), "")
        if found := foreign or (messages and _of_other_task(messages[-1][1], task, texts)):
            mixed.append(found)
    if len(mixed) < ROLLOUTS:
        return None
    return MixedRole(role, len(firsts), len(mixed), mixed[0], _shared_objects(role, rollouts))


def _own_texts(tasks: Mapping[int, Mapping[str, Any]]) -> dict[int, list[str]]:
    """Task -> its texts of several words that no other task has."""
    texts = {task: {each for each in _strings(fields) if len(each.split()) > 1} for task, fields in tasks.items()}
    count = Counter(text for of_task in texts.values() for text in of_task)
    return {task: [text for text in of_task if count[text] == 1] for task, of_task in texts.items()}


def _strings(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _strings(each)]
    return [value.strip()] if isinstance(value, str) else []


def _of_other_task(message: str, task: int, texts: Mapping[int, Sequence[str]]) -> str:
    """The text of another task that a message holds instead of its own; '' if it holds none, or its own too."""
    if not texts.get(task) or any(text in message for text in texts[task]):
        return ""
    return next((text for other, own in texts.items() if other != task for text in own if text in message), "")


class _History:
    """What was asked and answered in which rollout, and when."""

    def __init__(
        self,
        rollouts: Sequence[Rollout],
        calls: dict[str, list[Call]],
        firsts: dict[str, list[tuple[str, str]]],
    ) -> None:
        self._tasks = {each.id: each.task_id for each in rollouts}
        self._started = {rollout: of_role[0].meta.started_ns for rollout, of_role in calls.items() if of_role}
        self._asked: dict[tuple[str, str], list[str]] = {}
        """The last message of a first request -> rollouts."""
        self._answered: dict[tuple[tuple[str, str], str], list[tuple[str, int]]] = {}
        """A message and what was sampled after it -> rollouts, and when it was there."""
        for rollout, messages in firsts.items():
            if messages:
                self._asked.setdefault(messages[-1], []).append(rollout)
        for rollout, of_role in calls.items():
            for call in of_role:
                asked = request_turns(call)
                for text in filter(None, map(text_of, sampled_messages(call))):
                    if asked:
                        self._answered.setdefault((asked[-1], text), []).append((rollout, call.meta.ended_ns))

    def of_others(
        self, rollout: str, messages: Sequence[tuple[str, str]], common: set[tuple[str, str]]
    ) -> Iterable[tuple[str, str]]:
        """Messages of a first request that come from other rollouts: what another task asked, and an answer that was
        sampled to the message before it, both earlier than this request."""
        started = self._started[rollout]
        for message in messages[:-1]:
            if message not in common and any(
                self._tasks[other] != self._tasks[rollout] and self._started[other] <= started
                for other in self._asked.get(message, ())
            ):
                yield message
        for before, message in pairwise(messages):
            if (
                message[0] == "assistant"
                and message not in common
                and any(
                    other != rollout and ended <= started
                    for other, ended in self._answered.get((before, message[1]), ())
                )
            ):
                yield message


def _shared_objects(role: str, rollouts: Sequence[Rollout]) -> tuple[str, ...]:
    told = (
        span.attributes
        for each in rollouts
        for span in each.spans
        if span.name == notices.SHARED and span.role in {role, ""}
    )
    return tuple(dict.fromkeys(str(each.get(notices.OBJECT)) for each in told))


def finding(mixed: MixedRole) -> Finding:
    """The finding about mixed rollouts."""
    shown = " ".join(mixed.example.split())
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
    who = f"the role {mixed.role}" if mixed.role else "calls without a role"
    what = (
        f"{', '.join(mixed.shared)} is created once, used by several rollouts, and remembers what it was asked."
        if mixed.shared
        else "Something that remembers what it was asked is created once and used by all: an agent, a "
        "memory, a list of messages."
    )
    return Finding(
        kind="rollouts mixed",
        severity=Severity.FATAL,
        what=f"in {mixed.mixed} of {mixed.rollouts} rollouts the first request of {who} holds a message of another "
        f"rollout (such as {shown!r}).",
        cause=f"{what} A rollout is then trained on what others were asked and answered.",
        remedy="Create it inside the function under @lightning.agent, so that each rollout has its own. If there can "
        "be only one, clear its memory when the function begins, and let each process run one rollout at a time: "
        "--runners 4 --set "
        "rollouts.concurrency=4. If rollouts are meant to learn from each other's messages, ignore this.",
        passing=True,
    )
