"""A spool: batches in a file, first in first out, within a bound on its bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from lightning_sdk.wire import Batch


class Spool:
    """Batches on disk. Without a path the file has no name and goes when the process does."""

    def __init__(self, path: Path | None = None, *, limit: int = 2**40, read: bool = False) -> None:
        """Open `path` for appending, or with `read` for taking what an earlier process appended."""
        self._path, self._limit = path, limit
        self._file: IO[bytes] | None = None
        self._read_at = self._write_at = 0
        if path is not None:
            self._file = path.open("r+b" if read else "w+b")
            self._write_at = path.stat().st_size if read else 0

    @property
    def bytes(self) -> int:
        """Bytes that wait to be taken."""
        return self._write_at - self._read_at

    @property
    def full(self) -> bool:
        return self.bytes >= self._limit

    def append(self, batch: Batch) -> None:
        if not batch.count:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lightning-")  # noqa: SIM115 - lives as long as the spool
        self._file.seek(self._write_at)
        self._file.writelines((batch.header(), batch.body))
        self._write_at = self._file.tell()

    def take(self) -> Batch:
        """The oldest batch; ValueError if the file is torn there."""
        assert self._file is not None
        self._file.seek(self._read_at)
        header = self._file.read(Batch.HEADER.size)
        body = self._file.read(Batch.HEADER.unpack(header)[3])
        self._read_at = self._file.tell()
        if not self.bytes and self._path is None:
            self.clear()
        return Batch.read(header, body)

    def __iter__(self) -> Iterator[Batch]:
        """Take one after another."""
        while self.bytes:
            yield self.take()

    def clear(self) -> None:
        self._read_at = self._write_at = 0
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._read_at = self._write_at = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
