"""JSON lines: one file with a line for each rollout, or a folder with a file for each table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightning_dashboard.export.output import RolloutWriter, TableFolder, WrittenOutput, unfinished_file
from lightning_dashboard.export.records import ExportedRollout
from lightning_dashboard.export.tables import ROWS, Row, rollout_rows
from lightning_dashboard.server import to_json

OPTION = "--jsonl"
_SUFFIXES = (".jsonl", ".json", ".ndjson")


def open_json_lines(path: Path, role: str) -> RolloutWriter:
    """One file if the path has the name of one, else a folder."""
    if path.suffix in _SUFFIXES and not path.is_dir():
        return JsonLinesFile(path, role)
    return TableFolder(path, OPTION, "jsonl", role, lambda _, draft: _Lines(draft))


class JsonLinesFile:
    """One line for each rollout, which has its calls and token sequences in lists."""

    def __init__(self, path: Path, role: str) -> None:
        self._file, self._role = unfinished_file(path, OPTION), role
        self._lines = _Lines(self._file.draft)
        self._count = 0

    def add(self, exported: ExportedRollout) -> None:
        inside = {name: list(rows(exported, self._role)) for name, rows in ROWS.items() if name != "rollouts"}
        self._count += self._lines.write({**row, **inside} for row in rollout_rows(exported))

    def finish(self) -> WrittenOutput:
        self._lines.close()
        return WrittenOutput(self._file.path, {"rollouts": self._count}, self._file.finish())

    def discard(self) -> None:
        self._lines.close()
        self._file.discard()


class _Lines:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii")

    def write(self, rows: Iterable[Row]) -> int:
        lines = [to_json(row) + "\n" for row in rows]
        self._file.writelines(lines)
        return len(lines)

    def close(self) -> None:
        self._file.close()
