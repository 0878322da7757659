"""The lines of a JSONL file that grows: what was read is not read again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, BinaryIO


class GrowingLines:
    """One file. A resumed run writes its file again from an earlier step on: then all of it is read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines: list[dict[str, Any]] = []
        self._file: tuple[int, int] = (0, 0)
        self._read = 0

    def read(self) -> list[dict[str, Any]]:
        """All whole lines so far; a line that is just being written, or cannot be read, is left out."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    self._take(file)
            except OSError:
                self._lines, self._read = [], 0
            return list(self._lines)

    def _take(self, file: BinaryIO) -> None:
        state = self._path.stat()
        same = (state.st_dev, state.st_ino) == self._file and state.st_size >= self._read
        if not same:
            self._lines, self._read, self._file = [], 0, (state.st_dev, state.st_ino)
        file.seek(self._read)
        whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                self._lines.append(value)
