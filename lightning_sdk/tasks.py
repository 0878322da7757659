"""Tasks: what an agent is asked, read from a list, a JSONL file or a Parquet file, and split for evaluation."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_sdk import wire
from lightning_sdk.errors import TaskError

Task = dict[str, Any]
Source = str | Path | Iterable[Mapping[str, Any]]


def load(source: Source, what: str = "tasks") -> list[Task]:
    """The tasks of a file (.jsonl, .parquet) or of any iterable of mappings.

    Raises:
        TaskError: the file is missing, of another kind, or empty; or a line or item is no JSON object. The message
            names the line.
    """
    if isinstance(source, str | Path):
        tasks = _from_file(Path(source).expanduser(), what)
    else:
        tasks = [_checked(task, f"{what}[{index}]") for index, task in enumerate(source)]
    if not tasks:
        raise TaskError(f"{what}: {source if isinstance(source, str | Path) else 'the list'} holds no task")
    return tasks


def split(tasks: list[Task], part: float, most: int, seed: int) -> tuple[list[Task], list[Task]]:
    """Training and held-out tasks: a seeded draw of `part` of them, at most `most`; each task is in one of the two.

    Raises:
        TaskError: fewer than two tasks.
    """
    if len(tasks) < 2:
        raise TaskError("one task alone cannot be split into training and held-out tasks: give more, or held_out=...")
    count = max(1, min(most, int(len(tasks) * part)))
    chosen = set(random.Random(seed).sample(range(len(tasks)), count))
    return (
        [task for index, task in enumerate(tasks) if index not in chosen],
        [task for index, task in enumerate(tasks) if index in chosen],
    )


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


def _from_file(path: Path, what: str) -> list[Task]:
    if not path.is_file():
        raise TaskError(f"{what}: no file {path}; give a .jsonl or .parquet file, or a list of dicts")
    if path.suffix == ".parquet":
        return _from_parquet(path)
    if path.suffix not in {".jsonl", ".ndjson", ".json"}:
        raise TaskError(f"{what}: {path} is neither .jsonl nor .parquet")
    tasks: list[Task] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    tasks.append(_checked(json.loads(line), f"{path}, line {number}"))
                except ValueError as error:
                    raise TaskError(f"{path}, line {number}: not JSON ({error}): {line.strip()[:80]}") from None
    return tasks


def _from_parquet(path: Path) -> list[Task]:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - only users of Parquet need it
    except ModuleNotFoundError:
        raise TaskError(f"{path}: reading Parquet needs pyarrow; install it: pip install pyarrow") from None
    rows: list[Any] = pyarrow.parquet.read_table(path).to_pylist()
    return [_checked(row, f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def _checked(task: Any, where: str) -> Task:
    if not isinstance(task, Mapping):
        raise TaskError(f"{where}: a task is an object of names and values, not {type(task).__name__}: {task!r:.80}")
    plain = dict(task)
    try:
        wire.pack(plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise TaskError(f"{where}: a task holds plain data only (text, numbers, lists, dicts): {error}") from None
    return plain
