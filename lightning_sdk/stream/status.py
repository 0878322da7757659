"""The counters of a stream, for users to read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class StreamStatus:
    """Counters of a stream; events unless said otherwise."""

    hub: str = ""
    """Id of the hub, '' while it has not answered."""
    put: int = 0
    sent: int = 0
    """Includes events sent again."""
    acknowledged: int = 0
    """On the hub's disk."""
    resent: int = 0
    dropped: int = 0
    window_bytes: int = 0
    spilled_bytes: int = 0
    """Bytes of batches that now wait on disk."""
    connections: int = 0
    refused: str = ""
    """Why the hub sent us away, '' if it did not."""

    @property
    def waiting(self) -> int:
        """Events that the hub does not have on its disk yet."""
        return self.put - self.dropped - self.acknowledged
