"""Tasks from the files of Spider, which are not in this repository, with its execution match.

A database's folder may hold several SQLite files, as that of the test suites does: a query has to be right on all.
"""

from __future__ import annotations

import json
import random
import sqlite3
from functools import cache
from pathlib import Path

FILES = {"train": ("train_spider.json", "database"), "held_out": ("test.json", "test_database")}
HELD_OUT_SIZE, HELD_OUT_SEED = 500, 0
LONGEST_SCHEMA = 2048


def load(folder: str | Path, name: str) -> list[dict]:
    """The questions of `train`, or 500 of those of `held_out`, as tasks of the agent."""
    listed, databases = (Path(folder) / each for each in FILES[name])
    if not databases.is_dir():  # the first releases have all databases in one folder
        databases = Path(folder) / "database"
    entries = json.loads(listed.read_text("utf-8"))
    if name == "held_out" and len(entries) > HELD_OUT_SIZE:
        entries = random.Random(HELD_OUT_SEED).sample(entries, HELD_OUT_SIZE)
    return [_task(entry, databases / entry["db_id"]) for entry in entries]


def _task(entry: dict, folder: Path) -> dict:
    files = sorted(map(str, folder.glob("*.sqlite")))
    if not files:
        raise FileNotFoundError(f"no SQLite file of the database {entry['db_id']!r} in {folder}")
    own = str(folder / f"{entry['db_id']}.sqlite")
    files.sort(key=lambda path: path != own)  # the agent sees the original, which is the first
    return {
        "database": entry["db_id"],
        "schema": schema(files[0]),
        "request": entry["question"],
        "query": tidy(entry["query"]),
        "files": files,
        "keep_distinct": False,
    }


@cache
def schema(path: str) -> str:
    """One line for each table: `pets(id, name, owner_id)`."""
    connection = sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {name: connection.execute("SELECT name FROM pragma_table_info(?)", (name,)) for name in tables}
        lines = [f"{name}({', '.join(column for (column,) in found)})" for name, found in columns.items()]
    finally:
        connection.close()
    return "\n".join(lines)[:LONGEST_SCHEMA]


def tidy(query: str) -> str:
    """Spider's queries have blanks inside signs, which SQLite does not read."""
    for sign in ("> =", "< =", "! ="):
        query = query.replace(sign, sign.replace(" ", ""))
    return query
