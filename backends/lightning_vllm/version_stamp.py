"""Version stamps: the version of the weights, inserted next to the token ids of a reply.

The field is the same as the embedded engine's: `weight_versions`, runs of [version, tokens], in each choice that has
`token_ids`. In a JSON string the quotes of "token_ids" would be escaped, so content is never mistaken for it.
"""

from __future__ import annotations

import re

_IDS = re.compile(rb'"token_ids"\s*:\s*\[([^\]]*)\]')
_END = b"\n\n"


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
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The events that can be sent now, b'' if none is complete."""
        data = self._held + piece
        cut = data.rfind(_END) + len(_END)
        if cut < len(_END):
            self._held = data
            return b""
        self._held = data[cut:]
        return stamp_versions(data[:cut], self._version)

    def end(self) -> bytes:
        """The rest, when no more pieces come."""
        held, self._held = self._held, b""
        return stamp_versions(held, self._version)
