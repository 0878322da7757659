"""The gate: requests to models of rollouts whose run has a budget of calls, tokens or money pass here first.

A search says who decides. What a call has really taken is told as its reply comes in.
"""

from __future__ import annotations

from lightning_hub.backend import CallMeter
from lightning_hub.storage.index import Index
from lightning_sdk.hub.questions import ClaimQuestion


class CallGate:
    """Open where nobody counts."""

    def __init__(self) -> None:
        self.index: Index | None = None
        """Where calls come in."""
        self._meter: CallMeter | None = None

    def use(self, meter: CallMeter | None) -> None:
        """Let this meter decide from now on; None: let everything pass."""
        self._meter = meter
        if self.index is not None:
            self.index.on_call = None if meter is None else meter.settle

    def claim(self, asked: ClaimQuestion) -> str:
        """'' if the request may leave, or why not."""
        return "" if self._meter is None else self._meter.claim(asked)
