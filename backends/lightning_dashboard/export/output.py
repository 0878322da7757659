"""Where an export is written: files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lightning_dashboard.export.records import ExportedRollout
from lightning_dashboard.export.tables import ROWS, Row
from lightning_sdk.errors import SettingError
from lightning_sdk.system.folders import make_folder


@dataclass(frozen=True, slots=True)
class WrittenOutput:
    """What one format came to."""

    path: Path
    counts: Mapping[str, int]
    """What it holds -> how many."""
    bytes: int


class RolloutWriter(Protocol):
    """Writes rollouts in one format."""

    def add(self, exported: ExportedRollout) -> None:
        """The next rollout."""

    def finish(self) -> WrittenOutput:
        """Put everything in its place; nothing can be added any more."""

    def discard(self) -> None:
        """Leave nothing behind of what is not finished. Idempotent."""


class OpenTable(Protocol):
    """A file that rows are written to."""

    def write(self, rows: Iterable[Row]) -> int:
        """How many there were."""

    def close(self) -> None:
        """All of them are in the file. Idempotent."""


@dataclass(slots=True)
class UnfinishedFile:
    """A file that gets its name when it is finished."""

    path: Path
    draft: Path = field(init=False)
    """Where it is written until then."""

    def __post_init__(self) -> None:
        self.draft = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")

    def finish(self) -> int:
        """Its size in bytes, now that it is in its place."""
        self.draft.replace(self.path)
        return self.path.stat().st_size

    def discard(self) -> None:
        """Remove it if it is not finished."""
        self.draft.unlink(missing_ok=True)


def unfinished_file(path: Path, option: str) -> UnfinishedFile:
    """A file to be written, in a folder that is made where there is none.

    Raises:
        SettingError: it cannot be made there; the message names the option.
    """
    if path.is_dir():
        raise SettingError(f"{option} {path}: expected the name of a file, and this is a folder")
    make_folder(path.parent, f"{option} FILE")
    return UnfinishedFile(path)


class TableFolder:
    """A folder with a file for each table."""

    def __init__(
        self, folder: Path, option: str, suffix: str, role: str, open_table: Callable[[str, Path], OpenTable]
    ) -> None:
        """`role`: the only one whose calls and tokens are written, '' for all. SettingError if there can be no such
        folder."""
        self._folder, self._role = make_folder(folder, f"{option} FOLDER"), role
        self._files = {table: UnfinishedFile(self._folder / f"{table}.{suffix}") for table in ROWS}
        self._tables = {table: open_table(table, file.draft) for table, file in self._files.items()}
        self._counts = dict.fromkeys(ROWS, 0)

    def add(self, exported: ExportedRollout) -> None:
        for table, rows in ROWS.items():
            self._counts[table] += self._tables[table].write(rows(exported, self._role))

    def finish(self) -> WrittenOutput:
        for table in self._tables.values():
            table.close()
        return WrittenOutput(self._folder, self._counts, sum(file.finish() for file in self._files.values()))

    def discard(self) -> None:
        for table in self._tables.values():
            table.close()
        for file in self._files.values():
            file.discard()
