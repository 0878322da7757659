"""The writes of what arrives: since when they fail, which is reported once, and ends a training if it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from lightning_sdk.errors import DiskError
from lightning_sdk.failures import disk

#: For room to be made before a training ends. What arrives meanwhile waits in the agents' processes.
_PATIENCE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Writes:
    """Failing writes of the log and the database, by name. The receiver reports; any thread may check."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._failing: dict[str, tuple[float, Exception]] = {}
        """Name -> monotonic time of the first failure since the last success, and the last error."""

    def fail(self, name: str, error: Exception, meanwhile: str) -> None:
        """`name` could not be written; `meanwhile`: where what it should hold is until it can be."""
        first = name not in self._failing
        since, _ = self._failing.get(name, (time.monotonic(), error))
        self._failing[name] = (since, error)
        why = disk.trouble(error, self._folder) or f"{type(error).__name__}: {error}"
        _log.error("%s cannot be written: %s", name, why)
        if first:
            self._warn(f"{name} cannot be written: {why}. Until then {meanwhile}")

    def succeed(self, name: str) -> None:
        self._failing.pop(name, None)

    def check(self) -> None:
        """DiskError if something could not be written for a while, and cannot now."""
        for name, (since, error) in list(self._failing.items()):
            if time.monotonic() - since > _PATIENCE_SECONDS:
                told = f"{name} in {self._folder} cannot be written: {error}"
                raise disk.trouble(error, self._folder) or DiskError(told)
