"""The ending of a run: writes its report, and sends the last event, even if the report could not be written."""

from __future__ import annotations

import logging
import time

from lightning_hub.results.run_folder import RunFolder
from lightning_hub.storage.index import Index
from lightning_hub.storage.store import Store
from lightning_hub.training.checkpoints import Checkpoints
from lightning_sdk.errors import LightningError
from lightning_sdk.failures import disk
from lightning_sdk.hub.events import FailedEvent, FinishedEvent

_SETTLE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Ending:
    """The ending of one run."""

    def __init__(self, folder: RunFolder, checkpoints: Checkpoints, index: Index, store: Store) -> None:
        self._folder, self._checkpoints, self._index, self._store = folder, checkpoints, index, store

    def finish(self, status: str, steps: int) -> FinishedEvent:
        """Write the report of a run that is 'finished' or was 'stopped' after this many steps; the last event."""
        self._settle()
        report = self._folder.finish(self._store.totals(), self._checkpoints.last_name(), status)
        return FinishedEvent(report, self._folder.curve() if steps else "")

    def fail(self, error: BaseException, *, writes: bool) -> FailedEvent:
        """The last event of a run that failed; with `writes`, its report too, if that can be written."""
        _log.error("the run failed", exc_info=error)
        told = self._tell(error)
        if writes:
            try:
                self._settle()
                self._folder.fail(told, self._store.totals(), self._checkpoints.last_name())
            except Exception:  # as on a full disk: what the run failed with is told all the same
                _log.exception("the report could not be written")
        return FailedEvent(type(told).__name__, str(told))

    def _tell(self, error: BaseException) -> LightningError:
        if isinstance(error, LightningError):
            return error
        bug = f"{type(error).__name__}: {error}; a bug of the hub or its backend: see hub.log"
        return disk.trouble(error, self._folder.path) or LightningError(bug)

    def _settle(self) -> None:
        """Wait a little until the store has what rollouts sent: the report's findings are read from there."""
        end = time.monotonic() + _SETTLE_SECONDS
        while self._index.unsaved_bytes > 0 and time.monotonic() < end:
            time.sleep(0.02)
