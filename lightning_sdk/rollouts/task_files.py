"""Task files: JSON lines, a JSON array, CSV or Parquet, read into objects that say where in the file they stand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_sdk.errors import TaskError

#: What can be read, as messages say it.
KINDS = ".jsonl (one JSON object per line), .json (an array of objects), .csv (with a header) or .parquet"
_CONVERT = "pandas.DataFrame.to_json(path, orient='records', lines=True) writes .jsonl"
#: First bytes of files in other encodings; the longer ones first.
_OTHERS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_GZIP = b"\x1f\x8b"
#: Characters of one CSV value; Python's own limit is 131,072, and a task may hold a document.
_LONGEST_VALUE = 2**31 - 1

PlacedItems = Iterator[tuple[str, Any]]
"""Place of each object in words, such as 'tasks.jsonl, line 3', and the object."""


def read(path: Path, what: str) -> PlacedItems:
    """What a file holds, in order. `what` is the argument that named it.

    Raises:
        TaskError: the file does not exist, is of another kind, or is damaged; the message gives the line.
    """
    reader = _READERS.get(path.suffix.lower())
    if path.is_dir():
        raise TaskError(f"{what}: {path} is a folder; give a file: {KINDS}")
    if not path.is_file():
        raise TaskError(f"{what}: no file {path}; give a file ({KINDS}) or a list of dicts")
    if reader is None:
        raise TaskError(f"{what}: {path} is not {KINDS}; {_CONVERT}")
    try:
        return reader(path)
    except OSError as error:
        raise TaskError(f"{what}: {path} cannot be read: {error.strerror or error}") from None


def _json(path: Path) -> PlacedItems:
    text = _text(path)
    if text.lstrip()[:1] == "[":
        return _array(path, text)
    return _lines(path, text)


def _array(path: Path, text: str) -> PlacedItems:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise TaskError(f"{path}, line {line}: not JSON ({error}): {_line(text, line)}") from None
    return ((f"{path}, task {number}", value) for number, value in enumerate(values, 1))


def _lines(path: Path, text: str) -> PlacedItems:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}, line {number}: not JSON ({error}): {line.strip()[:80]}{_hint(text)}") from None
        yield f"{path}, line {number}", value


def _hint(text: str) -> str:
    """What the file is, if it is one JSON value over several lines."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    keys = ", ".join(map(str, value)) if isinstance(value, dict) else ""
    return f"\nThe file is one object (with {keys[:80]}); tasks are an array of objects, or one object per line"


def _csv(path: Path) -> PlacedItems:
    """Every value is text: a CSV file does not say what is a number."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    before = csv.field_size_limit(_LONGEST_VALUE)
    try:
        return iter(list(_rows(path, reader)))
    finally:
        csv.field_size_limit(before)


def _rows(path: Path, reader: Any) -> PlacedItems:
    header: list[str] = []
    try:
        for row in reader:
            if not header:
                header = _header(path, row)
            elif row and len(row) != len(header):
                raise TaskError(
                    f"{path}, line {reader.line_num}: {len(row)} values, but the header names {len(header)}: "
                    f"{', '.join(row)[:80]}"
                )
            elif row:
                yield f"{path}, line {reader.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise TaskError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _header(path: Path, row: list[str]) -> list[str]:
    twice = sorted({name for name in row if row.count(name) > 1})
    if twice or not all(row):
        wrong = f"names {twice[0]!r} twice" if twice and twice[0] else "has a column without a name"
        raise TaskError(f"{path}, line 1: the header {wrong}: {', '.join(row)[:80]}; its names are the tasks' keys")
    return row


def _parquet(path: Path) -> PlacedItems:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - only users of Parquet need it
    except ModuleNotFoundError:
        raise TaskError(f"{path}: reading Parquet needs pyarrow; install it: pip install pyarrow") from None
    try:
        rows: list[Any] = pyarrow.parquet.read_table(path).to_pylist()
    except Exception as error:  # a damaged file makes pyarrow raise nearly anything
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TaskError(f"{path}: not a Parquet file, or damaged ({told})") from None
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _text(path: Path) -> str:
    """The file's text, without the mark that some editors put before UTF-8."""
    data = path.read_bytes()
    if data.startswith(_GZIP):
        raise TaskError(f"{path}: the file is compressed with gzip; unpack it first")
    for mark, name in _OTHERS:
        if data.startswith(mark):
            raise TaskError(f"{path}, line 1: the file is {name}, not UTF-8; convert it: iconv -f {name} -t UTF-8 FILE")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise TaskError(
            f"{path}, line {line}: a byte 0x00, which text cannot contain: the file is damaged, or UTF-16; convert it: "
            "iconv -f UTF-16LE -t UTF-8 FILE"
        )
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); convert the file, from Latin-1 with: "
            "iconv -f LATIN1 -t UTF-8 FILE"
        ) from None


def _line(text: str, number: int) -> str:
    lines = text.split("\n")
    return lines[number - 1].strip()[:80] if number <= len(lines) else ""


_READERS = {".jsonl": _json, ".ndjson": _json, ".json": _json, ".csv": _csv, ".parquet": _parquet}
