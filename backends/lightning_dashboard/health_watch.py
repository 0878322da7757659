"""What `check` says of a run, each finding at the step where it began, computed beside the answers to requests."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_hub.health.examine import examine
from lightning_hub.health.onset import date_findings
from lightning_hub.health.run_record import read_record
from lightning_sdk.errors import LightningError

#: Times the work that it rests after it: the training comes first on the cores that both share.
_REST_FACTOR = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, and of what state of the folder."""

    version: str = ""
    """'' as long as nothing was found out yet."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """As `Finding.as_dict`, and the 'step' where it began."""
    summary: str = ""
    roles: list[dict[str, Any]] = field(default_factory=list)
    missing: str = ""
    """Why there is none."""


class HealthWatch:
    """Examines one folder on a thread, when somebody asks and something has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._found = Findings()
        self._busy = False
        self._rests_until = 0.0

    def findings(self, version: str) -> tuple[Findings, bool]:
        """What is known by now, and whether more is being found out. `version`: that of the folder now."""
        with self._lock:
            if self._found.version != version and not self._busy and time.monotonic() >= self._rests_until:
                self._busy = True
                threading.Thread(target=self._examine, args=(version,), name="health", daemon=True).start()
            return self._found, self._found.version != version

    def examine(self, version: str) -> Findings:
        """What is found in the folder now; waits for it."""
        found = _examine(self._folder, version)
        with self._lock:
            self._found = found
        return found

    def _examine(self, version: str) -> None:
        began = time.monotonic()
        found = _examine(self._folder, version)
        with self._lock:
            self._found, self._busy = found, False
            self._rests_until = time.monotonic() + _REST_FACTOR * (time.monotonic() - began)


def _examine(folder: Path, version: str) -> Findings:
    try:
        record = read_record(folder)
        health = examine(record)
        dated = date_findings(record, health.findings)
        told = health.examination().as_dict()
    except LightningError as error:
        return Findings(version, missing=str(error))
    except Exception as error:  # a store of another version, for one: the page shows all else
        _log.exception("%s cannot be examined", folder)
        return Findings(version, missing=f"the run cannot be examined: {type(error).__name__}: {error}")
    return Findings(
        version, [{**each.finding.as_dict(), "step": each.step} for each in dated], told["summary"], told["roles"]
    )
