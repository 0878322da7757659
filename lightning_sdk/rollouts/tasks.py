"""Tasks: what an agent is asked. Read from a file or from Python, identified by their content, and split for
evaluation."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk.errors import TaskError
from lightning_sdk.hub.events import NoticeEvent, Told, WarningEvent
from lightning_sdk.rollouts import task_files
from lightning_sdk.settings import Settings
from lightning_sdk.stream.plain_data import NotPlain, plain_object

Task = dict[str, Any]
Source = str | Path | Iterable[Any]
"""A file, or any iterable of mappings: a list, a generator, a Hugging Face dataset; or a DataFrame."""


def load(source: Source, what: str = "tasks") -> list[Task]:
    """The tasks of a file (.jsonl, .json, .csv, .parquet), an iterable of mappings, or a table of pandas, polars or
    pyarrow. NumPy's numbers and arrays in them become Python's.

    Raises:
        TaskError: the file is missing, damaged, of another kind, or empty; or an item is not a mapping, or holds
            something other than plain data. The message names the line or the task, and the key.
    """
    path = Path(source).expanduser() if isinstance(source, str | Path) else None
    found = task_files.read(path, what) if path is not None else _items(source, what)
    tasks = [_check(task, where) for where, task in found]
    if not tasks:
        raise TaskError(f"{what}: {path or 'what was given'} holds no tasks")
    return tasks


def split(tasks: list[Task], part: float, most: int, seed: int) -> tuple[list[Task], list[Task]]:
    """Training and held-out tasks: a seeded draw of `part` of the different ones, at most `most`.

    Equal tasks are on the same side: all in training, or held out, there once.

    Raises:
        TaskError: fewer than two different tasks.
    """
    different = unique(tasks)
    if len(different) < 2:
        alike = "a single task" if len(tasks) < 2 else f"{len(tasks)} equal tasks"
        raise TaskError(f"{alike} cannot be split into training and held-out tasks: give more tasks, or held_out=...")
    count = max(1, min(most, int(len(different) * part)))
    chosen = set(random.Random(seed).sample(range(len(different)), count))
    held_out = [task for index, task in enumerate(different) if index in chosen]
    return without(tasks, held_out), held_out


class Parts(NamedTuple):
    """Training and held-out tasks, which have none in common."""

    training: list[Task]
    held_out: list[Task]
    warnings: tuple[str, ...] = ()
    """What the user is told of tasks that were on both sides, or twice on one."""
    notices: tuple[str, ...] = ()

    def events(self) -> list[Told]:
        """All of them, as they are shown."""
        return [*map(WarningEvent, self.warnings), *map(NoticeEvent, self.notices)]


def divide(tasks: list[Task], held_out: list[Task] | None, settings: Settings) -> Parts:
    """The tasks that a new run trains on, and those that it holds out: `held_out` if given, else a draw of the tasks.

    Raises:
        TaskError: there would be none to train on.
    """
    if held_out is None:
        evaluation = settings.evaluation
        return Parts(*split(tasks, evaluation.split, evaluation.tasks, settings.seed))
    different, training = unique(held_out), without(tasks, held_out)
    if not training:
        raise TaskError(
            f"tasks: all {len(tasks)} are in held_out as well, so there are none to train on: leave held_out out to "
            "have a part of the tasks held out"
        )
    warnings = list[str]()
    if both := len(tasks) - len(training):
        warnings.append(
            f"{both} of {len(tasks)} tasks are held out as well, and are not trained on: a score on tasks that were "
            "trained on says nothing about others. Remove them from tasks or from held_out"
        )
    if twice := len(held_out) - len(different):
        warnings.append(f"{twice} of {len(held_out)} held-out tasks are duplicates: each counts once")
    return Parts(training, different, tuple(warnings))


def unique(tasks: Iterable[Task]) -> list[Task]:
    """The first of each set of equal tasks."""
    found: dict[str, Task] = {}
    for task in tasks:
        found.setdefault(canonical(task), task)
    return list(found.values())


def without(tasks: Iterable[Task], others: Iterable[Mapping[str, Any]]) -> list[Task]:
    """Those of `tasks` that equal none of `others`."""
    known = {canonical(task) for task in others}
    return [task for task in tasks if canonical(task) not in known]


def canonical(task: Mapping[str, Any]) -> str:
    """A task as JSON that is the same for equal tasks, whatever the order of their keys; 1 and 1.0 are equal."""
    return json.dumps(_whole(task), sort_keys=True)


def task_id(task: Mapping[str, Any]) -> int:
    """A number of 52 bits by which a task is known: it depends on the task's content and on nothing else."""
    return int(hashlib.sha256(canonical(task).encode()).hexdigest()[:13], 16)


def _whole(value: Any) -> Any:
    """With whole floats as integers: a table has a column of integers as floats once a value is missing."""
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _items(source: Any, what: str) -> Iterator[tuple[str, Any]]:
    """The items of what is not a file, each with its place in words."""
    if isinstance(source, Mapping):  # one task, or the splits of a Hugging Face dataset
        keys, first = ", ".join(map(str, source)), next(iter(source), "")
        raise TaskError(
            f"{what} is one {type(source).__name__} with {keys[:80]}: give a list of dicts; [{what}] if it is one "
            f"task, {what}[{first!r}] if that holds the tasks"
        )
    try:
        rows = iter(_rows(source))
    except TypeError:
        called = f"; call it: {what}()" if callable(source) else ""
        raise TaskError(
            f"{what} is {source!r:.80}{called}: give a file ({task_files.KINDS}), a list of dicts, or a DataFrame"
        ) from None
    for index, row in enumerate(rows):
        yield f"{what}[{index}]", row


def _rows(source: Any) -> Iterable[Any]:
    """Rows of a table as its library gives them, by its methods: none of these libraries has to be there."""
    if hasattr(source, "to_dicts"):  # polars
        return source.to_dicts()  # type: ignore[no-any-return]
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        return source.to_dict(orient="records")  # type: ignore[no-any-return]
    if hasattr(source, "to_pylist"):  # pyarrow
        return source.to_pylist()  # type: ignore[no-any-return]
    return source  # type: ignore[no-any-return]


def _check(task: Any, where: str) -> Task:
    if not isinstance(task, Mapping):
        raise TaskError(f"{where}: a task is an object of names and values, not {type(task).__name__}: {task!r:.80}")
    try:
        return plain_object(task)
    except NotPlain as error:
        raise TaskError(f"{where}{error}") from None
