"""The hub of a run under way, watched: what it tells, and how full its queues are."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from lightning_sdk.errors import LightningError
from lightning_sdk.hub.client import HubClient

_WAIT_SECONDS = 20.0
_AGAIN_SECONDS = 2.0
#: Messages that are kept.
_MAX_MESSAGES = 300
_TOLD = frozenset({"status", "notice", "warning", "failed"})


class HubWatch:
    """Follows the feed of one hub on a thread until the hub is gone. `status` asks at most every two seconds."""

    def __init__(self, folder: Path, address: str, key: str) -> None:
        """`folder`: the run's."""
        self.folder = folder.absolute()
        self._address, self._key = address, key
        self._messages: deque[dict[str, Any]] = deque(maxlen=_MAX_MESSAGES)
        self._lock = threading.Lock()
        self._asked = 0.0
        self._status: dict[str, Any] | None = None
        self._client: HubClient | None = None
        threading.Thread(target=self._follow, name="feed", daemon=True).start()

    def messages(self) -> list[dict[str, Any]]:
        """What the hub told in words, oldest first: time, type and text."""
        return list(self._messages)

    def status(self) -> dict[str, Any] | None:
        """The hub's counters and queues; None if it does not answer any more."""
        with self._lock:
            if time.monotonic() - self._asked > _AGAIN_SECONDS:
                self._status = self._ask_status()
                self._asked = time.monotonic()
            return self._status

    def _ask_status(self) -> dict[str, Any] | None:
        try:
            if self._client is None:
                self._client = HubClient(self._address, self._key, seconds=_AGAIN_SECONDS)
            answer: dict[str, Any] = self._client.ask("status")
        except LightningError:
            if self._client is not None:
                self._client.close()
                self._client = None
            return None
        return answer

    def _follow(self) -> None:
        seen = 0
        try:
            with HubClient(self._address, self._key) as client:
                while True:
                    for each in client.ask("watch", after=seen, wait=_WAIT_SECONDS):
                        seen = each["number"]
                        if each["type"] in _TOLD:
                            text = each.get("text") or ": ".join(map(str, each.get("error", ())))
                            self._messages.append({"time": each["time"], "type": each["type"], "text": text})
        except LightningError:
            return  # it has ended, and what it told is kept
