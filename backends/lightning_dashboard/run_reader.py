"""One run's folder, opened for reading: its files, its rollouts by columns, and what was computed of them before."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning_dashboard.growing_lines import GrowingLines
from lightning_dashboard.health_watch import HealthWatch
from lightning_dashboard.hub_watch import HubWatch
from lightning_dashboard.rollout_table import RolloutColumns, RolloutTable
from lightning_hub.evaluation.evaluation import HeldOut, latest_evaluations
from lightning_hub.health.run_record import read_settings
from lightning_hub.rollouts.archive import Archive
from lightning_sdk.results.run_files import (
    CONFIG,
    DIAGNOSIS,
    EVALUATIONS,
    REPORT,
    STEPS,
    RunConfig,
    StepMetrics,
    read_config,
    read_report,
)
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.settings import Settings

T = TypeVar("T")
STORE = "hub.sqlite"
#: What changes when there is something new to see.
_WATCHED = (
    CONFIG, STEPS, EVALUATIONS, REPORT, DIAGNOSIS, STORE, f"{STORE}-wal", "search.jsonl", "candidates.jsonl",
    "hub.log", "backend.log", "hub.lock",
)  # fmt: skip
#: Results that are kept of each run.
_MAX_KEPT = 64


class RunReader:
    """Reads one run, which may be under way. Any thread may ask."""

    def __init__(self, name: str, folder: Path, hub: HubWatch | None = None) -> None:
        self.name, self.folder, self.hub = name, folder, hub
        self._steps = GrowingLines(folder / STEPS)
        self._evaluations = GrowingLines(folder / EVALUATIONS)
        self._table: RolloutTable | None = None
        self.used = 0.0
        """When its rollouts were last asked for; 0.0 while they are not in memory."""
        self._lock = threading.Lock()
        self._kept: dict[object, tuple[object, Any]] = {}
        self.health = HealthWatch(folder)

    def version(self) -> str:
        """Another text whenever something in the folder has changed that a view may show."""
        parts = [str(self.is_running())]
        for name in _WATCHED:
            try:
                state = (self.folder / name).stat()
            except OSError:
                continue
            if state.st_size:  # a reader of the store makes an empty file beside it
                parts.append(f"{name} {state.st_size} {state.st_mtime_ns}")
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()

    @property
    def config(self) -> RunConfig:
        """How it was started; empty if that was not kept."""
        return read_config(self.folder) or RunConfig()

    @property
    def report(self) -> RunReport | None:
        """What came of it; None as long as it is not over."""
        return read_report(self.folder)

    @property
    def settings(self) -> Settings:
        """Those that the run had, without those that this version does not know."""
        return read_settings(self.config.settings or {})

    def steps(self) -> Sequence[StepMetrics]:
        """The metrics of each step so far."""
        return self._steps.read()

    def evaluations(self) -> list[HeldOut]:
        """The measurements on held-out tasks so far."""
        return latest_evaluations(self._evaluations.read())

    @property
    def has_rollouts(self) -> bool:
        """Whether a store of rollouts is there."""
        return (self.folder / STORE).is_file()

    def rollouts(self) -> RolloutColumns:
        """The rollouts so far, by columns; none if the run has no store."""
        if not self.has_rollouts:
            return RolloutColumns.empty(self.settings)
        with self._lock:
            self.used = time.monotonic()
            if self._table is None:
                self._table = RolloutTable(self.folder / STORE, self.settings)
            return self._table.refresh()

    def drop_rollouts(self) -> None:
        """Free the memory of its rollouts; they are read again when they are asked for."""
        with self._lock:
            self._table, self.used = None, 0.0
            self._kept.clear()

    def archive(self) -> Archive:
        """The rollouts with their calls, for the thread that asks; to be closed by it."""
        return Archive(self.folder)

    def status(self) -> str:
        """'running', 'finished', 'stopped', 'failed', or 'unfinished' for a run that was killed."""
        if self.is_running():
            return "running"
        report = self.report
        return report.status if report is not None else "unfinished"

    def is_running(self) -> bool:
        """Whether a hub is writing there now, and not just ending."""
        pid, _, state = _read(self.folder / "hub.lock").partition(" ")
        return pid.isdigit() and not state and _is_hub(int(pid)) and not self._is_over()

    def _is_over(self) -> bool:
        """A hub stays for a moment after its last report, and one that serves writes none."""
        try:
            written = (self.folder / REPORT).stat().st_mtime
            return written >= (self.folder / "hub.lock").stat().st_mtime
        except OSError:
            return False

    def keep(self, key: object, version: object, make: Callable[[], T]) -> T:
        """What `make` returns, or returned before for this key and version."""
        found = self._kept.get(key)
        if found is not None and found[0] == version:
            return found[1]  # type: ignore[no-any-return]
        value = make()
        self._kept[key] = (version, value)
        while len(self._kept) > _MAX_KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        return value


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _is_hub(pid: int) -> bool:
    """Whether this process is a hub; where that cannot be seen, whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        return b"lightning_hub" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()
