"""Running a model's SQL on a SQLite file without harm, and comparing what two queries find."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

SECONDS, ROWS, TEXT = 2.0, 1000, 100_000
"""Limits of one query: how long it may run, how many rows it may give, how long a value may be."""
READING = {getattr(sqlite3, name) for name in ("SQLITE_SELECT", "SQLITE_READ", "SQLITE_FUNCTION", "SQLITE_RECURSIVE")}

Row = tuple[object, ...]


@dataclass(frozen=True)
class Result:
    """Rows, or why there are none."""

    rows: list[Row]
    error: str = ""

    def text(self, most: int = 3) -> str:
        """What the agent is shown."""
        if self.error:
            return f"Error: {self.error}"
        shown = "; ".join(", ".join(map(_show, row)) for row in self.rows[:most]) or "no rows"
        return f"Result: {shown}{f' and {len(self.rows) - most} more' if len(self.rows) > most else ''}"


def run(path: Path, sql: str) -> Result:
    """Run one query. It can only read this file, and is stopped at the limits."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    deadline = time.monotonic() + SECONDS
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, TEXT)
        connection.text_factory = lambda text: text.decode(errors="replace")
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READING else sqlite3.SQLITE_DENY)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
        rows = connection.execute(sql).fetchmany(ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return Result([], str(error))
    finally:
        connection.close()
    return Result([], f"more than {ROWS} rows") if len(rows) > ROWS else Result(rows)


def match(paths: Sequence[Path], sql: str, gold: str, keep_distinct: bool = True) -> bool:
    """Whether a query finds the same as the gold query on every instance: as Spider's execution match compares them.

    Rows count as often as they occur, columns may come in any order, and the order of rows counts if the gold query has
    an ORDER BY. Spider's own evaluation also ignores DISTINCT in both queries, which is `keep_distinct=False`.
    """
    if not keep_distinct:
        sql, gold = without_distinct(sql), without_distinct(gold)
    for path in paths:
        right, found = run(path, gold), run(path, sql)
        if right.error:
            raise ValueError(f"the gold query {gold!r} fails on {path.name}: {right.error}")
        if found.error or not is_equal(right.rows, found.rows, ordered="order by" in gold.lower()):
            return False
    return True


def is_equal(rows: Sequence[Row], others: Sequence[Row], ordered: bool) -> bool:
    """Whether two results are the same for some order of columns."""
    if not rows and not others:
        return True
    if len(rows) != len(others) or len(rows[0]) != len(others[0]):
        return False
    width = len(rows[0])
    columns = [Counter(row[place] for row in rows) for place in range(width)]
    candidates = [Counter(row[place] for row in others) for place in range(width)]
    for order in permutations(range(width)):
        if any(columns[place] != candidates[source] for place, source in enumerate(order)):
            continue
        moved = [tuple(row[source] for source in order) for row in others]
        if list(rows) == moved if ordered else Counter(rows) == Counter(moved):
            return True
    return False


def without_distinct(sql: str) -> str:
    """The query without the word DISTINCT, except inside quotes."""
    parts = re.split(r"('(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`)", sql)
    return "".join(
        part if place % 2 else re.sub(r"\bdistinct\b\s*", "", part, flags=re.IGNORECASE)
        for place, part in enumerate(parts)
    )


def _show(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
