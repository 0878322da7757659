"""The archive: the rollouts of a run read back from its folder, without a hub and without changing anything.

A run under way can be read too: the reader sees what the hub has saved, but not what it is just writing.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_hub.decoding.events import DecodedEvent, decode_event
from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.rollouts.collector import Collected
from lightning_hub.storage.attempts import ATTEMPT_COLUMNS, StoredAttempt
from lightning_hub.storage.index import each_extent
from lightning_hub.storage.reading import open_store
from lightning_sdk.errors import SettingError

_OVER = "status NOT IN ('queued', 'running')"


class Archive:
    """Rollouts of one run's folder, read-only."""

    def __init__(self, folder: Path, *, rescored: bool = True) -> None:
        """SettingError if nothing is stored there. `rescored` False: rewards as they were while the run went on."""
        path = folder / "hub.sqlite"
        if not path.is_file():
            raise SettingError(f"{folder} holds no rollouts: it has no {path.name}")
        self._folder = folder / "spans"
        self._db = open_store(path)
        columns = {name for (name,) in self._db.execute("SELECT name FROM pragma_table_info('rewards')")}
        # A store of an earlier version has no re-scorings, and no reasons.
        counts = "AND replaced IS NULL" if rescored else "AND rescoring IS NULL"
        self._counts = counts if "replaced" in columns else ""
        self._why = "why" if "why" in columns else "''"

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def entries(self, mode: str) -> list[StoredAttempt]:
        """The last attempt of each finished rollout of this mode ('train' or 'evaluate'), in the order of their end."""
        query = f"SELECT {ATTEMPT_COLUMNS} FROM rollouts WHERE mode = ? AND {_OVER} ORDER BY attempt, ended"
        found = (StoredAttempt.from_row(row) for row in self._db.execute(query, (mode,)))
        return list({entry.id: entry for entry in found}.values())

    def tasks(self, entries: Iterable[StoredAttempt]) -> dict[int, dict[str, Any]]:
        """Task id -> task, of these entries."""
        found: dict[int, dict[str, Any]] = {}
        for entry in entries:
            if entry.task_id not in found:
                (text,) = self._db.execute("SELECT task FROM rollouts WHERE key = ?", (entry.key,)).fetchone()
                task = json.loads(text or "{}")
                found[entry.task_id] = task if isinstance(task, dict) else {}
        return found

    def rollouts(self, entries: Iterable[StoredAttempt]) -> Iterator[Rollout]:
        """These entries with their calls and rewards; one whose log is gone or damaged is left out."""
        for entry in entries:
            with contextlib.suppress(OSError, ValueError, TypeError):
                yield self._rollout(entry)

    def rewards(self, entry: StoredAttempt) -> tuple[EarnedReward, ...]:
        """What the rollout was given, in order."""
        given = f"SELECT role, name, value, time_ns, {self._why} FROM rewards WHERE key = ? AND value IS NOT NULL"
        found = self._db.execute(f"{given} {self._counts} ORDER BY rowid", (entry.key,))
        return tuple(EarnedReward(role, name, float(value), int(time), why) for role, name, value, time, why in found)

    def read(self, key: bytes) -> Collected:
        """What the events of one attempt hold, which may still be under way. OSError, ValueError or TypeError if its
        log is gone or damaged."""
        found = Collected()
        for event in self._events(key):
            found.add(event)
        return found

    def _rollout(self, entry: StoredAttempt) -> Rollout:
        found = self.read(entry.key)
        return Rollout(
            id=entry.id,
            task_id=entry.task_id,
            group=entry.group,
            mode=entry.mode,
            attempt=entry.attempt,
            status=entry.status,
            error=entry.error,
            seconds=(entry.ended or 0.0) - (entry.started or 0.0),
            rewards=self.rewards(entry),
            calls=found.calls_in_order(),
            spans=tuple(found.spans),
            answer=found.answer,
        )

    def _events(self, key: bytes) -> Iterator[DecodedEvent]:
        pairs = array("Q")
        for (packed,) in self._db.execute("SELECT positions FROM extents WHERE key = ? ORDER BY rowid", (key,)):
            pairs.frombytes(packed)
        for position, length in each_extent(pairs):
            path, offset = self._folder / f"{position >> 32:06d}.log", position & 0xFFFFFFFF
            with path.open("rb") as file:
                file.seek(offset)
                event = file.read(length)
            if len(event) != length:
                raise OSError(f"{path} ends before byte {offset + length}")
            yield decode_event(event)
