"""Version stamps: the version of the weights, inserted next to the token ids of a reply.

The field is the same as the embedded engine's: `weight_versions`, runs of [version, tokens], in each choice that has
`token_ids`. In a JSON string the quotes of "token_ids" would be escaped, so content is never mistaken for it.
"""

from __future__ import annotations

import re

from lightning_sdk.translation.sse import WholeEvents

_IDS = re.compile(rb'"token_ids"\s*:\s*\[([^\]]*)\]')


def stamp_versions(data: bytes, version: int) -> bytes:
    """Stamp every list of sampled ids in complete JSON, or in complete events of a stream, with `version`."""

    def runs(found: re.Match[bytes]) -> bytes:
        ids = found[1]
        count = ids.count(b",") + 1 if ids.strip() else 0
        return found[0] + b',"weight_versions":' + (b"[[%d,%d]]" % (version, count) if count else b"[]")

    return _IDS.sub(runs, data)


class StampedStream:
    """Stamps server-sent events that arrive in pieces; an event is returned once it is complete."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._events = WholeEvents()

    def feed(self, piece: bytes) -> bytes:
        """The events that can be sent now, b'' if none is complete."""
        return stamp_versions(self._events.feed(piece), self._version)

    def end(self) -> bytes:
        """The rest, when no more pieces come."""
        return stamp_versions(self._events.end(), self._version)
