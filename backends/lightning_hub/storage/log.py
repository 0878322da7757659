"""The append-only log: batches of events in segment files, the truth for every span.

A record is a batch exactly as it crosses the wire: header, body. A position is `segment << 32 | offset`, so positions
only grow. When `append` returns, the batch is on disk. A torn tail was never acknowledged, and recovery cuts it off.

A large commit bypasses the page cache if the file system allows it: those pages are not read soon, and getting them
from the kernel costs more than everything else that the hub does for an event (10 to 20 us of its 30).
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lightning_sdk.stream.wire import EventBatch

SEGMENT_BYTES = 256 * 1024 * 1024
_BLOCK = 4096
#: One write at most, and the memory kept for it.
_BUFFER_BYTES = 4 * 1024 * 1024
#: From so many bytes on a write goes past the page cache; below, the page cache is faster.
_DIRECT_BYTES = 128 * 1024
#: Of a damaged piece.
_SHOWN_BYTES = 65_536
_sync = getattr(os, "fdatasync", os.fsync)
_log = logging.getLogger(__name__)


class Log:
    """Segments `000001.log ...` in one folder. One writer; `read` may be called from any thread."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._readers: dict[int, int] = {}
        self._lock = threading.Lock()
        self.on_damage: Callable[[str, bytes, str], None] = lambda *_: None
        """Gets what `recover` leaves out: its place in words, its bytes (of a long piece the first ones), and why."""
        folder.mkdir(parents=True, exist_ok=True)
        self._number, self._file, self._offset = 0, -1, 0
        self._direct = -1
        self._buffer = memoryview(mmap.mmap(-1, _BUFFER_BYTES + _BLOCK))  # at the start of a page, as O_DIRECT asks
        self._open(max(self.segments(), default=1))

    def segments(self) -> list[int]:
        """Numbers of the segments on disk, oldest first."""
        return sorted(int(path.stem) for path in self.folder.glob("*.log") if path.stem.isdigit())

    @property
    def segment(self) -> int:
        """The segment that is written now."""
        return self._number

    @property
    def end(self) -> int:
        """The position after the last record."""
        return self._number << 32 | self._offset

    def append(self, records: Sequence[tuple[bytes, bytes | memoryview]]) -> list[int]:
        """Write (header, body) of batches and sync; the position of each body. OSError leaves the log as it was."""
        if self._offset >= self._segment_bytes:
            self._roll()
        start, positions, parts = self._offset, list[int](), list[bytes | memoryview]()
        offset = start
        for header, body in records:
            positions.append(self._number << 32 | (offset + len(header)))
            offset += len(header) + len(body)
            parts += (header, body)
        try:
            self._write(start, parts)
            _sync(self._file)
        except OSError:
            os.ftruncate(self._file, start)
            raise
        self._offset = offset
        return positions

    def _write(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Gather the parts in the buffer, each at the place in a block that it has in the file, and write them."""
        begin = filled = offset % _BLOCK
        for part in parts:
            rest = memoryview(part)
            while rest:
                taken = rest[: len(self._buffer) - filled]
                self._buffer[filled : filled + len(taken)] = taken
                filled, rest = filled + len(taken), rest[len(taken) :]
                if filled == len(self._buffer):
                    self._write_buffer(offset, begin, filled)
                    offset += filled - begin
                    begin = filled = 0
        self._write_buffer(offset, begin, filled)

    def _write_buffer(self, offset: int, begin: int, end: int) -> None:
        """Write `buffer[begin:end]`: whole blocks directly, what is left before and after through the page cache."""
        first, last = -(-begin // _BLOCK) * _BLOCK, end // _BLOCK * _BLOCK
        if self._direct < 0 or last - first < _DIRECT_BYTES:
            first = last = end
        _write_all(self._file, self._buffer[begin:first], offset)
        self._write_direct(self._buffer[first:last], offset + first - begin)
        _write_all(self._file, self._buffer[last:end], offset + last - begin)

    def _write_direct(self, blocks: memoryview, offset: int) -> None:
        try:
            _write_all(self._direct, blocks, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system that opens files for this and then wants larger blocks.
            os.close(self._direct)
            self._direct = -1
            _write_all(self._file, blocks, offset)

    def read(self, position: int, length: int) -> bytes:
        """`length` bytes of a body. OSError if its segment is gone."""
        number, offset = position >> 32, position & 0xFFFFFFFF
        with self._lock:
            if number not in self._readers:
                self._readers[number] = os.open(self._path(number), os.O_RDONLY)
            data = os.pread(self._readers[number], length, offset)
        if len(data) != length:
            raise OSError(f"{self._path(number)} ends before byte {offset + length}")
        return data

    def place(self, position: int) -> str:
        """A position in words."""
        return f"{self.folder.name}/{self._path(position >> 32).name}, byte {position & 0xFFFFFFFF}"

    def recover(self, position: int) -> Iterator[tuple[int, EventBatch]]:
        """Every batch from `position` on, with the position of its body. Leaves a damaged one out, and cuts a torn tail
        off the last segment."""
        for number in self.segments():
            if number >= position >> 32:
                start = position & 0xFFFFFFFF if number == position >> 32 else 0
                yield from self._records(number, start)

    def delete(self, number: int) -> int:
        """Remove one closed segment; its size in bytes."""
        with self._lock:
            if number in self._readers:
                os.close(self._readers.pop(number))
            size = self._path(number).stat().st_size
            self._path(number).unlink()
        return size

    def bytes(self) -> int:
        """Size of all segments."""
        return sum(self._path(number).stat().st_size for number in self.segments())

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                os.close(reader)
            self._readers.clear()
            self._close_segment()

    def _records(self, number: int, start: int) -> Iterator[tuple[int, EventBatch]]:
        path = self._path(number)
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 20) as file:
            file.seek(start)
            offset = start
            while offset < size:
                batch = _record(file, offset, size)
                if batch is not None:
                    yield number << 32 | (offset + EventBatch.HEADER.size), batch
                    offset += EventBatch.HEADER.size + len(batch.body)
                    continue
                if number == self._number:
                    self._cut(offset, size)
                    return
                # A closed segment was synced whole: this is damage, not a crash, and what is behind it counts.
                after = _next(file, offset, size)
                self._tell_damage(number, offset, after)
                offset = after

    def _tell_damage(self, number: int, offset: int, end: int) -> None:
        with self._path(number).open("rb") as file:
            file.seek(offset)
            piece = file.read(min(end - offset, _SHOWN_BYTES))
        _log.error("%s is damaged at byte %d; %d bytes are skipped", self._path(number), offset, end - offset)
        self.on_damage(self.place(number << 32 | offset), piece, f"{end - offset} bytes of the log are damaged")

    def _cut(self, offset: int, size: int) -> None:
        _log.warning("%s: cut a torn tail of %d bytes", self._path(self._number), size - offset)
        os.ftruncate(self._file, offset)
        _sync(self._file)
        self._offset = offset

    def _roll(self) -> None:
        self._close_segment()
        self._open(self._number + 1)

    def _open(self, number: int) -> None:
        self._number = number
        self._file = os.open(self._path(number), os.O_WRONLY | os.O_CREAT, 0o600)
        self._direct = _open_direct(self._path(number))
        self._offset = os.fstat(self._file).st_size
        folder = os.open(self.folder, os.O_RDONLY)
        os.fsync(folder)  # the file's name has to survive as well
        os.close(folder)

    def _close_segment(self) -> None:
        for file in (self._file, self._direct):
            if file >= 0:
                os.close(file)
        self._file = self._direct = -1

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.log"


def _record(file: BinaryIO, offset: int, size: int) -> EventBatch | None:
    """The batch at `offset`, None if none is there."""
    file.seek(offset)
    header = file.read(EventBatch.HEADER.size)
    if len(header) < EventBatch.HEADER.size:
        return None
    length = EventBatch.HEADER.unpack(header)[3]
    # A header of zeros is what a file system may leave after a power cut; no batch is empty.
    if not 0 < length <= size - offset - EventBatch.HEADER.size:
        return None
    try:
        return EventBatch.read(header, file.read(length))
    except ValueError:
        return None


def _next(file: BinaryIO, offset: int, size: int) -> int:
    """Where the next whole batch after a damaged one begins, if the headers between lead there; else the end."""
    while offset + EventBatch.HEADER.size < size:
        file.seek(offset)
        length = EventBatch.HEADER.unpack(file.read(EventBatch.HEADER.size))[3]
        offset += EventBatch.HEADER.size + length
        if length and _record(file, offset, size) is not None:
            return offset
        if not length:
            break
    return size


def _open_direct(path: Path) -> int:
    """The file again, for writes past the page cache; -1 where there are none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except (OSError, AttributeError):
        return -1


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
