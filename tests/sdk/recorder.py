"""Takes events where the stream would, and shows them as what they are."""

import gc
import time
from typing import Any

from lightning_hub.decoding.replies import decode
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call, CallMeta, Span


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def put(self, event: tuple[Any, ...], size: int) -> None:
        self.events.append(event)

    @property
    def calls(self) -> list[Call]:
        """Calls as the hub would read them."""
        return [
            decode(CallMeta(*meta), request, reply)
            for kind, _, meta, request, reply in (event for event in self.events if event[0] == Event.REPLY)
        ]

    @property
    def spans(self) -> list[Span]:
        return [Span.unpack(event[2]) for event in self.events if event[0] == Event.SPAN]

    def of(self, kind: Event) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == kind]

    def collect(self) -> None:
        """Collect garbage until it gives a call: while another thread collects, `gc.collect` does nothing."""
        deadline = time.monotonic() + 5
        gc.collect()
        while not self.of(Event.REPLY) and time.monotonic() < deadline:
            time.sleep(0.01)
            gc.collect()
