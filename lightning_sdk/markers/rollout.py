"""A rollout in the agent's process: one execution of an agent on a task, opened, scored and ended."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from lightning_sdk.errors import RewardError
from lightning_sdk.failures.failure import describe, plain, status_of
from lightning_sdk.markers.reward import RewardFunction, RewardValue, describe_missing_reward
from lightning_sdk.stream import notices, sink
from lightning_sdk.stream.plain_data import NotPlain, plain_object
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope

#: Characters of JSON in one answer, at most.
_MAX_ANSWER_CHARACTERS = 1_000_000
#: Characters of an answer that are shown.
_PREVIEW_CHARACTERS = 2000


class rollout:  # noqa: N801 - reads as a verb: `with lightning.rollout(task):`
    """Record the code inside as one rollout: `with lightning.rollout(task) as r: ...`.

    Use it in your own loop. Calls, spans and `emit_reward` inside belong to the rollout. An exception passes through
    and ends it as `agent_error`; Ctrl-C ends it as `infrastructure_error`. `lightning.train` opens one around each call
    of the agent.
    """

    def __init__(self, task: Mapping[str, Any] | None = None) -> None:
        self.task = dict(task or {})
        """What the agent was asked, as stored with the rollout."""
        self.answer: Any = None
        """Set this to store the answer with the rollout, so that it is shown and can be scored again by `rescore`."""
        self._scope = RolloutScope(uuid.uuid4().hex, os.urandom(16))
        self._entered = use_scope(Scope(rollout=self._scope))

    @property
    def id(self) -> str:
        """Id of the rollout, 32 hex digits."""
        return self._scope.id

    def __enter__(self) -> rollout:
        if sink.is_listening():
            task = sink.harmless("recording a task", lambda: _plain(self.task)) or {}
            sink.send_begin(self._scope, task)
        sink.prepare_rollout()
        self._scope.settle_here()
        self._entered.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)
        status = Status.OK if error is None else status_of(self._scope, error)
        end(self._scope, status, "" if error is None else describe(error, status), self.answer)

    async def __aenter__(self) -> rollout:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _plain(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task as it can be recorded: {} if it is not plain data, which does not stop the agent."""
    try:
        return plain_object(task)
    except NotPlain as error:
        sink.say_once("task", "lightning: rollout(task) is recorded without its task: task%s", error)
        return {}


def scope_from_assignment(message: Mapping[str, Any]) -> RolloutScope:
    """The scope of a rollout that the hub handed to this process."""
    sink.prepare_rollout()
    return RolloutScope(
        message["id"],
        message["key"],
        Endpoint(**message["endpoint"]) if message["endpoint"] is not None else None,
        message["sampling"],
        frozenset(message["roles"]),
        metered=bool(message.get("metered")),
        marks=set() if message.get("shows_marks") else None,
    )


def send_rewards(scope: RolloutScope, given: Sequence[RewardValue], rewards: Sequence[RewardFunction]) -> None:
    """Send the rewards of the reward functions; RewardError if there are none, and none was given inside the
    rollout."""
    for each in given:
        sink.send_reward(scope, each.value, each.role, each.name, "", by_function=True, why=each.why)
    if not scope.rewarded:
        raise RewardError(describe_missing_reward(rewards))


def end(scope: RolloutScope, status: Status, error: str = "", answer: Any = None) -> None:
    """Tell the hub that the rollout is over. Nothing that comes later counts for it."""
    scope.ended = True
    while scope.at_end:
        sink.harmless("ending a rollout's calls", scope.at_end.pop())
    if scope.candidate is not None and status == Status.OK:
        sink.harmless("reporting texts that were not seen", lambda: notices.report_unseen_texts(scope))
    shown = sink.harmless("showing an answer", lambda: preview_answer(answer)) or ""
    kept = sink.harmless("keeping an answer", lambda: answer_to_json(answer)) or ("", "it could not be read")
    sink.send_end(scope, status, plain(error), shown, *kept)


def preview_answer(answer: Any) -> str:
    """The beginning of the answer as text, to show."""
    try:
        text = str.__str__(answer if isinstance(answer, str) else "" if answer is None else repr(answer))[
            :_PREVIEW_CHARACTERS
        ]
    except BaseException as raised:  # of the user's own class
        text = f"(a {type(answer).__name__} that cannot be shown: its repr raised {type(raised).__name__})"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no place in a message


def answer_to_json(answer: Any) -> tuple[str, str]:
    """The answer as JSON and '', or '' and why it could not be restored from JSON as it was.

    Strings, numbers, booleans, None, lists, and dicts with string keys can be; a tuple comes back as a list.
    """
    try:
        left = _room_after(answer, _MAX_ANSWER_CHARACTERS)
        text = json.dumps(answer) if left >= 0 else ""
    except (_NotJSON, ValueError) as reason:
        return "", str(reason)
    except RecursionError:
        return "", "it is nested too deeply"
    except BaseException as raised:  # of the user's own class
        return "", f"looking at it raised {type(raised).__name__}"
    if text and len(text) <= _MAX_ANSWER_CHARACTERS:
        return text, ""
    return "", f"it is longer than {_MAX_ANSWER_CHARACTERS:,} characters"


class _NotJSON(Exception):
    """Something in an answer cannot be represented in JSON."""


def _room_after(value: Any, left: int) -> int:
    """About how many of `left` characters remain after `value`; negative once they are used up."""
    if value is None or isinstance(value, bool | int | float):
        return left - 1
    if isinstance(value, str):
        return left - len(value)
    if isinstance(value, list | tuple):
        for item in value:
            if left < 0:
                break
            left = _room_after(item, left - 1)
        return left
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _NotJSON(f"a dict in it has the key {key!r:.40}, which is not a string")
            if left < 0:
                break
            left = _room_after(item, left - 1 - len(key))
        return left
    kind = type(value)
    raise _NotJSON(f"it is or contains a {kind.__module__}.{kind.__qualname__}, which JSON cannot represent")
