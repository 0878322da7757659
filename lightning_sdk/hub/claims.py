"""Claims: asks the hub from any thread whether a request to a model may leave."""

from __future__ import annotations

import threading
from typing import Any

from lightning_sdk.hub.client import HubClient
from lightning_sdk.system import forks


class Claims:
    """Connects when it is asked for the first time."""

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key
        self._lock = threading.Lock()
        self._client: HubClient | None = None
        forks.in_child(self, Claims._forget)

    def ask(self, **fields: Any) -> str:
        """'' if the request may leave, or why not. `fields`: those of a `ClaimQuestion`.

        Raises:
            HubError: the hub cannot be asked.
        """
        with self._lock:
            if self._client is None:
                self._client = HubClient(self._address, self._key)
            return str(self._client.ask("claim", **fields))

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _forget(self) -> None:
        """In a forked process, which has copies of the connection and of a lock that nobody may release."""
        self._lock, self._client = threading.Lock(), None
