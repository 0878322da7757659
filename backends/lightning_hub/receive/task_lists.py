"""Task lists as they arrive, in a request or in parts before it, checked on arrival."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lightning_sdk.errors import HubError, TaskError
from lightning_sdk.hub.run_request import RunRequest, TaskListPart
from lightning_sdk.rollouts.tasks import Task
from lightning_sdk.stream.plain_data import NotPlain, plain_object

#: Lists that wait for the request that names them: one for training, one held out, and as many that nobody asked for.
_MAX_LISTS = 4


class TaskLists:
    """Belongs to the receiver's thread."""

    def __init__(self) -> None:
        self._lists: dict[str, list[Task]] = {}

    def add(self, part: TaskListPart) -> None:
        """Take one part of a list. TaskError for what is not a task, HubError for a part out of order."""
        number, first = str(part.list), int(part.first)
        found = self._lists.setdefault(number, []) if first == 0 else self._lists.get(number, [])
        if len(found) != first:
            raise HubError(f"{part.name}: the part that begins with task {first} arrived after {len(found)} tasks")
        found += _check(part.tasks, str(part.name), first)
        while len(self._lists) > _MAX_LISTS:
            del self._lists[next(iter(self._lists))]

    def resolve(self, request: RunRequest) -> RunRequest:
        """The request with its lists in place. TaskError or HubError if they are none."""
        tasks, held_out = self._list(request.tasks, "tasks"), self._list(request.held_out, "held_out")
        return replace(request, tasks=tasks, held_out=held_out)

    def _list(self, given: Any, name: str) -> Any:
        if not isinstance(given, dict):
            return _check(given, name, 0)
        found = self._lists.pop(str(given.get("list")), None)
        if found is None:
            raise HubError(f"{name}: the hub has no list {given.get('list')!r}: start the training again")
        return found


def _check(tasks: Any, name: str, first: int) -> Any:
    """The tasks, of plain data; a list of something else is refused where the plan is made."""
    for place, task in enumerate(tasks if isinstance(tasks, list) else (), first):
        try:
            plain_object(task)
        except NotPlain as error:
            raise TaskError(f"{name}[{place}]{error}") from None
    return tasks
