"""The store: SQLite with rollouts, rewards, versions, clients, and the index into the log.

Everything derived from the log is written in one transaction together with the log position that it covers, so that
after a crash the log is read again from there and nothing is counted twice.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_hub.storage.attempts import ATTEMPT_COLUMNS, StoredAttempt
from lightning_hub.storage.rows import (
    AnswerRow,
    BeginRow,
    EndRow,
    ExtentRow,
    RescoredRow,
    RescoringRow,
    RewardRow,
    StoredAnswer,
    StoredReward,
)
from lightning_sdk.errors import HubError
from lightning_sdk.trace.call import Status

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clients (id BLOB PRIMARY KEY, acked INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY, events INTEGER NOT NULL, owned INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rollouts (
    key BLOB PRIMARY KEY, id TEXT NOT NULL, attempt INTEGER NOT NULL, mode TEXT NOT NULL, task_id INTEGER NOT NULL,
    task TEXT NOT NULL, grp TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '', runner TEXT NOT NULL DEFAULT '',
    started REAL, ended REAL, answer TEXT NOT NULL DEFAULT '', unkept TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rollouts_id ON rollouts (id);
CREATE INDEX IF NOT EXISTS rollouts_status ON rollouts (status);
CREATE INDEX IF NOT EXISTS rollouts_ended ON rollouts (ended);
CREATE TABLE IF NOT EXISTS rewards (
    key BLOB NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL, value REAL, refused TEXT NOT NULL DEFAULT '',
    span TEXT NOT NULL, time_ns INTEGER NOT NULL, by_function INTEGER NOT NULL DEFAULT 0, rescoring INTEGER,
    replaced INTEGER, why TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS rewards_key ON rewards (key);
CREATE TABLE IF NOT EXISTS extents (key BLOB NOT NULL, positions BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS extents_key ON extents (key);
CREATE TABLE IF NOT EXISTS versions (version INTEGER, step INTEGER, time REAL, checkpoint TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS steps (step INTEGER PRIMARY KEY, metrics TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rescorings (number INTEGER PRIMARY KEY, time REAL NOT NULL, rewards TEXT NOT NULL);
"""
_VERSION = 3
#: What a store of the version before lacks. In version 1, the reward function's numbers had one name.
_MIGRATIONS = {
    2: (
        "ALTER TABLE rollouts ADD COLUMN answer TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE rollouts ADD COLUMN unkept TEXT NOT NULL DEFAULT ''",
        "UPDATE rollouts SET unkept = 'it was recorded by a version that kept no answers'",
        "ALTER TABLE rewards ADD COLUMN by_function INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE rewards ADD COLUMN rescoring INTEGER",
        "ALTER TABLE rewards ADD COLUMN replaced INTEGER",
        "UPDATE rewards SET by_function = 1 WHERE name = 'final'",
    ),
    3: ("ALTER TABLE rewards ADD COLUMN why TEXT NOT NULL DEFAULT ''",),
}
_LIVE = "status IN ('queued', 'running')"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run has used, over all its sessions."""

    train_seconds: float = 0.0
    """Wall time of training, without evaluation."""
    rollouts: Mapping[str, int] = field(default_factory=dict)
    """Status -> number of finished training rollouts."""
    calls: int = 0
    """Calls of trainable roles in them."""
    tokens: int = 0
    """Sampled tokens trained on."""


class Store:
    """One connection, guarded by a lock: any thread may call."""

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        """Open a store, made or brought up to this version; `reading`: as it is, and nothing is changed. HubError for
        a store of another version that cannot be brought up."""
        where = f"{path.absolute().as_uri()}?mode=ro" if reading else str(path)
        self._db = sqlite3.connect(where, isolation_level=None, check_same_thread=False, uri=reading)
        self._lock = threading.RLock()
        if reading:
            self._refuse_other_version()
        else:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._migrate()
            self._db.executescript(_SCHEMA)
        self.on_end: Callable[[list[bytes]], None] = lambda _: None
        """Gets the keys of attempts that are over, inside the transaction that says so."""

    def _refuse_other_version(self) -> None:
        if (found := self._value("PRAGMA user_version") or 1) != _VERSION:
            self.close()
            raise HubError(
                f"the store has version {found}, not {_VERSION}, and cannot be upgraded while a hub is "
                "using it, or where it cannot be written"
            )

    def _migrate(self) -> None:
        """Bring a store of an earlier version up to this one, all or nothing."""
        with self.transaction():
            empty = not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'rollouts'")
            found = _VERSION if empty else self._value("PRAGMA user_version") or 1
            if found > _VERSION:
                raise HubError(
                    f"the store has version {found}, but this release knows only {_VERSION}: install a newer release"
                )
            for version in range(found + 1, _VERSION + 1):
                for statement in _MIGRATIONS[version]:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _value(self, query: str, *values: Any) -> Any:
        """The first column of the first row of a query, None if it has no rows."""
        with self._lock:
            found = self._db.execute(query, values).fetchone()
        return None if found is None else found[0]

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- meta, clients, segments

    def get(self, name: str, default: Any = None) -> Any:
        found = self._value("SELECT value FROM meta WHERE name = ?", name)
        return default if found is None else found

    def put(self, values: Mapping[str, Any]) -> None:
        self._many("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def clients(self) -> dict[bytes, int]:
        """Client -> last event number that the index covers."""
        return dict(self.rows("SELECT id, acked FROM clients"))

    def put_clients(self, acked: Mapping[bytes, int]) -> None:
        self._many("INSERT OR REPLACE INTO clients VALUES (?, ?)", acked.items())

    def segments(self) -> dict[int, tuple[int, bool]]:
        """Segment -> events in it, and whether any belongs to a rollout."""
        return {
            n: (events, bool(owned)) for n, events, owned in self.rows("SELECT number, events, owned FROM segments")
        }

    def put_segments(self, segments: Mapping[int, tuple[int, bool]]) -> None:
        self._many("INSERT OR REPLACE INTO segments VALUES (?, ?, ?)", ((n, *rest) for n, rest in segments.items()))

    def delete_segment(self, number: int) -> None:
        self._many("DELETE FROM segments WHERE number = ?", [(number,)])

    # --- rollouts

    def begin(self, rows: Iterable[BeginRow]) -> None:
        """Attempts that are running now."""
        self._many(
            "INSERT OR IGNORE INTO rollouts (key, id, attempt, mode, task_id, task, grp, runner, started, status) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running')",
            rows,
        )

    def end(self, rows: Iterable[EndRow]) -> None:
        """The first end of an attempt counts."""
        rows = list(rows)
        self._many(f"UPDATE rollouts SET status=?, error=?, output=?, ended=? WHERE key=? AND {_LIVE}", rows)
        if rows:
            self.on_end([row.key for row in rows])

    def put_answers(self, rows: Iterable[AnswerRow]) -> None:
        self._many("UPDATE rollouts SET answer=?, unkept=? WHERE key=?", rows)

    def end_orphans(self, error: str, ended: float) -> None:
        """End every attempt that an earlier hub process had handed out."""
        keys = [key for (key,) in self.rows(f"SELECT key FROM rollouts WHERE mode != 'observe' AND {_LIVE}")]
        self._many(
            f"UPDATE rollouts SET status='infrastructure_error', error=?, ended=? WHERE mode != 'observe' AND {_LIVE}",
            [(error, ended)],
        )
        self.on_end(keys)

    def attempt(self, key: bytes) -> StoredAttempt | None:
        """One attempt, None if it is not known."""
        found = self.rows(f"SELECT {ATTEMPT_COLUMNS} FROM rollouts WHERE key = ?", key)
        return StoredAttempt.from_row(found[0]) if found else None

    def answers(self) -> list[StoredAnswer]:
        """Every attempt that is over, in the order in which they began."""
        found = self.rows(
            f"SELECT task, answer, unkept, {ATTEMPT_COLUMNS} FROM rollouts WHERE NOT {_LIVE} ORDER BY started, key"
        )
        return [
            StoredAnswer(StoredAttempt.from_row(attempt), task, answer, unkept)
            for task, answer, unkept, *attempt in found
        ]

    def statuses(self) -> dict[str, int]:
        """Number of attempts by status."""
        return dict(self.rows("SELECT status, COUNT(*) FROM rollouts GROUP BY status"))

    # --- rewards and extents

    def put_rewards(self, rows: Iterable[RewardRow]) -> None:
        self._many(
            "INSERT INTO rewards (key, role, name, value, refused, span, time_ns, by_function, why) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )

    def rescore(self, rewards: Iterable[RescoredRow], keys: Iterable[bytes], told: str) -> int:
        """Let these numbers stand for what reward functions gave the attempts of `keys` before, which is kept and no
        longer counts; the number of this re-scoring. All or nothing."""
        with self.transaction():
            number = int(self._value("SELECT COALESCE(MAX(number), 0) + 1 FROM rescorings"))
            self._many("INSERT INTO rescorings VALUES (?, ?, ?)", [(number, time.time(), told)])
            self._many(
                "UPDATE rewards SET replaced=? WHERE key=? AND by_function AND replaced IS NULL",
                ((number, key) for key in keys),
            )
            self._many(
                "INSERT INTO rewards (rescoring, by_function, span, key, role, name, value, time_ns, why) "
                "VALUES (?, 1, '', ?, ?, ?, ?, ?, ?)",
                ((number, *each) for each in rewards),
            )
        return number

    def reward_status(self, key: bytes) -> tuple[bool, str]:
        """Whether this attempt has rewards, and why one was refused ('' if none was)."""
        query = "SELECT COUNT(*), COALESCE(MAX(refused), '') FROM rewards WHERE key = ? AND replaced IS NULL"
        [(count, refused)] = self.rows(query, key)
        return bool(count), str(refused)

    def rewards(self) -> list[StoredReward]:
        """Those that count, of all attempts, in the order in which they were given."""
        found = self.rows(
            "SELECT key, role, name, value, time_ns, by_function, COALESCE(rescoring, 0), why FROM rewards "
            "WHERE replaced IS NULL AND value IS NOT NULL ORDER BY rowid"
        )
        return [StoredReward(*row) for row in found]

    def last_rescoring(self) -> RescoringRow | None:
        """The last one that was written."""
        found = self.rows("SELECT number, rewards FROM rescorings ORDER BY number DESC LIMIT 1")
        return RescoringRow(*found[0]) if found else None

    def put_extents(self, rows: Iterable[ExtentRow]) -> None:
        self._many("INSERT INTO extents VALUES (?, ?)", rows)

    def extents(self, key: bytes) -> array[int]:
        """Pairs of position and length, flat, in the order of the log."""
        pairs = array("Q")
        for (packed,) in self.rows("SELECT positions FROM extents WHERE key = ? ORDER BY rowid", key):
            pairs.frombytes(packed)
        return pairs

    # --- training

    def put_version(self, version: int, step: int, when: float, checkpoint: str = "") -> None:
        """`when`: Unix seconds."""
        self._many("INSERT INTO versions VALUES (?, ?, ?, ?)", [(version, step, when, checkpoint)])

    def put_step(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._many("INSERT OR REPLACE INTO steps VALUES (?, ?)", [(step, json.dumps(metrics))])

    def metrics(self, step: int) -> dict[str, float]:
        """Metrics of a step; empty if there is none."""
        found = self._value("SELECT metrics FROM steps WHERE step = ?", step)
        return {} if found is None else dict(json.loads(found))

    def totals(self) -> Totals:
        """What all steps so far took, over every session of the run."""
        steps = [json.loads(metrics) for (metrics,) in self.rows("SELECT metrics FROM steps")]

        def total(name: str) -> float:
            return float(sum(step.get(name, 0.0) for step in steps))

        return Totals(
            train_seconds=total("seconds"),
            rollouts={status.value: int(total(f"rollouts_{status}")) for status in Status},
            calls=int(total("calls")),
            tokens=int(total("tokens_trained")),
        )

    def cut_steps(self, step: int) -> None:
        """Forget the steps after `step`."""
        self._many("DELETE FROM steps WHERE step > ?", [(step,)])
        self._many("DELETE FROM versions WHERE step > ?", [(step,)])

    def _many(self, statement: str, rows: Iterable[Any]) -> None:
        with self._lock:
            inside = self._db.in_transaction
            if not inside:
                self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(statement, rows)
                if not inside:
                    self._db.execute("COMMIT")
            except BaseException:
                if not inside:
                    self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # where the disk is full, SQLite has done so itself
            self._db.execute("ROLLBACK")
