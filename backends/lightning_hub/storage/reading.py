"""A store read beside the hub that writes it: opened read-only, also if an earlier version wrote it."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_sdk.errors import SettingError

_LIVE = "status IN ('queued', 'running')"
_NARROW = "key, id, attempt, mode, task_id, grp, status, started, ended, runner"


def open_store(path: Path) -> sqlite3.Connection:
    """The store, read-only; also where not even its shared memory may be written. SettingError if it is damaged."""
    for options in ("mode=ro", "mode=ro&immutable=1"):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
        try:
            db.execute("SELECT 1 FROM rollouts LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            db.close()
            reason = error
            continue
        except sqlite3.DatabaseError as error:
            db.close()
            raise SettingError(f"{path} cannot be read: {error}") from error
        return db
    raise SettingError(f"{path} cannot be read: {reason}") from reason


class StoredTry(NamedTuple):
    """One attempt at a rollout, over or under way."""

    key: bytes
    id: str
    attempt: int
    mode: str
    task_id: int
    group: str
    status: str
    """As `Status`, or 'running'."""
    started: float | None
    """Unix time in seconds, as `ended`."""
    ended: float | None
    runner: str
    error: str
    task: str
    """As JSON."""
    output: str
    """The answer as it is shown to people."""


class RecordedReward(NamedTuple):
    """A reward as it was given."""

    role: str
    name: str
    value: float | None
    """None if it was refused."""
    refused: str
    """Why it was."""
    time_ns: int
    why: str
    by_function: bool
    rescoring: int
    """The re-scoring that gave it; 0: the run itself."""
    counts: bool
    """It was not refused, and no re-scoring has replaced it."""
    span: str
    """Id of the span that it was given in, '' if none is known."""


class StoreReader:
    """One connection, for the thread that opened it."""

    def __init__(self, path: Path) -> None:
        """SettingError if it cannot be read."""
        self._db = open_store(path)
        columns = {name for (name,) in self._db.execute("SELECT name FROM pragma_table_info('rewards')")}
        # A store of an earlier version has no re-scorings, and no reasons.
        self._counts = "AND replaced IS NULL" if "replaced" in columns else ""
        self._has_rescorings = "replaced" in columns
        self._why = "why" if "why" in columns else "''"
        self._place = path.absolute()

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state(self) -> object:
        """Another value whenever the store may have changed."""
        found = []
        for path in (self._place, self._place.with_name(f"{self._place.name}-wal")):
            try:
                state = path.stat()
            except OSError:
                continue
            if state.st_size:  # a reader makes an empty file beside the store
                found.append((state.st_size, state.st_mtime_ns, state.st_ino))
        return tuple(found)

    def rescoring(self) -> tuple[int, Mapping[str, float]]:
        """Number of the last re-scoring and the weights of its rewards; 0 if there is none."""
        if not self._has_rescorings:
            return 0, {}
        found = self._db.execute("SELECT number, rewards FROM rescorings ORDER BY number DESC LIMIT 1").fetchone()
        return (0, {}) if found is None else (int(found[0]), json.loads(found[1])["weights"])

    def attempts_since(self, ended: float) -> Iterator[Sequence[Any]]:
        """Every attempt that is under way, or ended at this time or later: its narrow columns, `_NARROW`."""
        yield from self._db.execute(
            f"SELECT {_NARROW} FROM rollouts WHERE {_LIVE} UNION ALL "
            f"SELECT {_NARROW} FROM rollouts WHERE NOT {_LIVE} AND (ended >= ? OR ended IS NULL)",
            (ended,),
        )

    def rewards_after(self, number: int) -> Iterator[tuple[int, bytes, str, str, float]]:
        """Rewards that count, written after the one with this row number: number, key, role, name, value."""
        yield from self._db.execute(
            f"SELECT rowid, key, role, name, value FROM rewards WHERE rowid > ? AND value IS NOT NULL {self._counts} "
            "ORDER BY rowid",
            (number,),
        )

    def attempt(self, key: bytes) -> Sequence[Any] | None:
        """The narrow columns of one attempt."""
        found: Sequence[Any] | None = self._db.execute(
            f"SELECT {_NARROW} FROM rollouts WHERE key = ?", (key,)
        ).fetchone()
        return found

    def attempts_of(self, rollout: str) -> list[StoredTry]:
        """Every attempt at the rollout with this id, the first one first, also one that is under way."""
        query = (
            "SELECT key, id, attempt, mode, task_id, grp, status, started, ended, runner, error, task, output "
            "FROM rollouts WHERE id = ? ORDER BY attempt"
        )
        return [StoredTry(*row) for row in self._db.execute(query, (rollout,))]

    def rewards_of(self, key: bytes) -> list[RecordedReward]:
        """Every reward that an attempt was given, also those that do not count (any more), in order."""
        counts = "replaced IS NULL AND value IS NOT NULL" if self._has_rescorings else "value IS NOT NULL"
        newer = "by_function, COALESCE(rescoring, 0)" if self._has_rescorings else "0, 0"
        query = (
            f"SELECT role, name, value, refused, time_ns, {self._why}, {newer}, {counts}, span FROM rewards "
            "WHERE key = ? ORDER BY rowid"
        )
        rows = self._db.execute(query, (key,))
        return [RecordedReward._make((*row[:6], bool(row[6]), row[7], bool(row[8]), row[9])) for row in rows]

    def versions(self) -> list[tuple[int, int, float, str]]:
        """Versions of the model: version, step, Unix time, checkpoint."""
        return self._db.execute("SELECT version, step, time, checkpoint FROM versions ORDER BY rowid").fetchall()

    def find_text(self, text: str) -> set[bytes]:
        """Keys of attempts with this text in their task, answer or error, or in the reason of a reward; upper and
        lower case of ASCII letters are the same."""
        within = re.sub(r"([\\%_])", r"\\\1", text)
        like = "LIKE ?1 ESCAPE '\\'"
        found = self._db.execute(
            f"SELECT key FROM rollouts WHERE task {like} OR output {like} OR error {like} OR id {like} "
            f"UNION ALL SELECT key FROM rewards WHERE {self._why} {like}",
            (f"%{within}%",),
        )
        return {key for (key,) in found}

    def texts(self, keys: Sequence[bytes]) -> dict[bytes, tuple[str, str, str]]:
        """Key -> task, answer and error of these attempts."""
        found = {}
        for key in keys:
            row = self._db.execute("SELECT task, output, error FROM rollouts WHERE key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = row
        return found
