"""What a store holds, read with plain SQL, and rankings counted pair by pair."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple


class Stored(NamedTuple):
    key: bytes
    id: str
    mode: str
    group: str
    task: dict[str, Any]
    answer: Any
    rewards: dict[str, float]
    """Name -> value, of those that count."""


def read_stored(run: Path) -> list[Stored]:
    """Every rollout that ended ok, in the order in which they began."""
    with closing(sqlite3.connect(run / "hub.sqlite")) as database:
        rows = database.execute(
            "SELECT key, id, mode, grp, task, answer FROM rollouts WHERE status = 'ok' ORDER BY started, key"
        ).fetchall()
        return [
            Stored(key, id_, mode, group, json.loads(task), json.loads(answer), _rewards(database, key))
            for key, id_, mode, group, task, answer in rows
        ]


def _rewards(database: sqlite3.Connection, key: bytes) -> dict[str, float]:
    query = "SELECT name, value FROM rewards WHERE key = ? AND replaced IS NULL"
    return {str(name): float(value) for name, value in database.execute(query, (key,))}


def groups(found: Iterable[Stored]) -> list[list[Stored]]:
    by_name: dict[str, list[Stored]] = {}
    for each in found:
        by_name.setdefault(each.group, []).append(each)
    return list(by_name.values())


def kendall_tau(
    sets: Iterable[list[Stored]], old: Callable[[Stored], float], new: Callable[[Stored], float]
) -> tuple[float, int, int]:
    """Kendall's tau-b over the pairs inside of each set, how many pairs were ordered, and how many are reversed."""
    same = reversed_ = before = after = 0
    for one_set in sets:
        for one, other in itertools.combinations(one_set, 2):
            x, y = old(one) - old(other), new(one) - new(other)
            same, reversed_ = same + (x * y > 0), reversed_ + (x * y < 0)
            before, after = before + (x != 0), after + (y != 0)
    return (same - reversed_) / math.sqrt(before * after), before, reversed_
