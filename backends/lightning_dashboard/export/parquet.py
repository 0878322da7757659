"""Parquet: a folder with a file for each table, written in row groups of bounded size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_dashboard.export.output import TableFolder
from lightning_dashboard.export.packages import require_package
from lightning_dashboard.export.tables import TABLES, Row
from lightning_dashboard.server import to_json

OPTION = "--parquet"
#: Values that wait in memory, about: numbers in lists count one each, texts one for each character.
_MAX_WAITING = 4_000_000
_SURROGATES = dict.fromkeys(range(55296, 57344), "�")


def open_parquet(folder: Path, role: str, option: str = OPTION) -> TableFolder:
    """A folder of Parquet files. SettingError without pyarrow."""
    require_package("pyarrow.parquet", option)
    return TableFolder(folder, option, "parquet", role, ParquetTable)


class ParquetTable:
    """One file with the columns of one table."""

    def __init__(self, table: str, path: Path) -> None:
        self._arrow, parquet = (require_package(name, OPTION) for name in ("pyarrow", "pyarrow.parquet"))
        self._columns = TABLES[table]
        self._schema = self._arrow.schema([(name, self._type(kind)) for name, kind in self._columns.items()])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Row] = []
        self._waiting = 0

    def write(self, rows: Iterable[Row]) -> int:
        plain = [{name: _plain(row[name], kind) for name, kind in self._columns.items()} for row in rows]
        self._rows += plain
        self._waiting += sum(map(_size, plain))
        if self._waiting >= _MAX_WAITING:
            self._flush()
        return len(plain)

    def close(self) -> None:
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
        self._rows, self._waiting = [], 0

    def _type(self, kind: Any) -> Any:
        """The Arrow type of a column of `TABLES`."""
        if isinstance(kind, list):
            return self._arrow.list_(self._type(kind[0]))
        if isinstance(kind, dict):
            return self._arrow.struct([(name, self._type(each)) for name, each in kind.items()])
        name = "string" if kind == "json" else kind
        return self._arrow.bool_() if name == "bool" else getattr(self._arrow, name)()


def _plain(value: Any, kind: Any) -> Any:
    """A value as Arrow takes it: JSON as text, and text without what is no character alone."""
    if kind == "json":
        return to_json(value, ascii=False).translate(_SURROGATES)
    if kind == "string" and isinstance(value, str):
        return value.translate(_SURROGATES) if not value.isascii() else value
    if isinstance(kind, dict):
        return {name: _plain(value[name], each) for name, each in kind.items()}
    if isinstance(kind, list) and value is not None and (isinstance(kind[0], dict) or kind[0] in {"string", "json"}):
        return [_plain(each, kind[0]) for each in value]
    return value


def _size(row: Row) -> int:
    return sum(len(value) if isinstance(value, list | str) else 1 for value in row.values())
