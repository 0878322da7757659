"""A spool: batches in a file, first in first out, within a bound on its bytes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import IO

from lightning_sdk.stream.wire import EventBatch


class Spool:
    """Batches on disk: in the file given, else in one that has no name and goes when the process does.

    The file is neither buffered nor left half written: what could not be appended whole is cut off again.
    """

    def __init__(self, file: IO[bytes] | None = None, *, limit: int = 2**40) -> None:
        """Append to `file`, which its owner opened without a buffer, and closes."""
        self._file, self._limit, self._is_ours = file, limit, file is None
        self._read_at = self._write_at = 0
        self.events = 0
        """Events that wait to be taken."""
        self.torn = 0
        """Bytes at the end of what an ended process wrote that do not make a whole batch."""

    @classmethod
    def open(cls, file: IO[bytes]) -> Spool:
        """What an ended process wrote to `file`, up to where that was torn off. The file stays as it is."""
        spool, whose = cls(file), None
        size = os.fstat(file.fileno()).st_size
        while header := spool._header(spool._write_at):
            client, first, count, length, _ = EventBatch.HEADER.unpack(header)
            end = spool._write_at + len(header) + length
            if end > size or not count or whose not in (None, (client, first)):
                break
            spool._write_at, whose = end, (client, first + count)
            spool.events += count
        spool.torn = size - spool._write_at
        return spool

    @property
    def size(self) -> int:
        """Bytes that wait to be taken."""
        return self._write_at - self._read_at

    @property
    def full(self) -> bool:
        """Whether the file has reached its bound; it is emptied only once all of it is taken."""
        return self._write_at >= self._limit

    def append(self, batch: EventBatch) -> None:
        """OSError if it cannot be written: then the spool is as it was."""
        if not batch.count:
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lightning-", buffering=0)  # noqa: SIM115 - the spool's
        at = self._write_at
        try:
            for part in (batch.header(), batch.body):
                at = self._write(part, at)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._write_at)
            raise
        self._write_at = at
        self.events += batch.count

    def peek(self) -> EventBatch:
        """The oldest batch; ValueError if it is torn, OSError if it cannot be read."""
        header = self._header(self._read_at)
        length = EventBatch.HEADER.unpack(header)[3] if header else 0
        return EventBatch.read(header, self._read(self._read_at + len(header), length))

    def take(self) -> EventBatch:
        """The same, and forget it."""
        batch = self.peek()
        self._read_at += EventBatch.HEADER.size + len(batch.body)
        self.events -= batch.count
        if not self.size and self._is_ours:
            self.clear()
        return batch

    def clear(self) -> None:
        """Forget everything."""
        self.events = 0
        if not self._is_ours:
            self._read_at = self._write_at
            return
        self._read_at = self._write_at = 0
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)

    def close(self) -> None:
        self.clear()
        if self._file is not None and self._is_ours:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _header(self, at: int) -> bytes:
        """The header at a place, b'' if it is incomplete."""
        header = self._read(at, EventBatch.HEADER.size)
        return header if len(header) == EventBatch.HEADER.size else b""

    def _read(self, at: int, length: int) -> bytes:
        if self._file is None:
            return b""
        read = os.pread(self._file.fileno(), length, at)
        while len(read) < length and (more := os.pread(self._file.fileno(), length - len(read), at + len(read))):
            read += more
        return read

    def _write(self, data: bytes | memoryview, at: int) -> int:
        """Write all of `data`; where it ends."""
        assert self._file is not None
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file.fileno(), left, at)
            left, at = left[written:], at + written
        return at
