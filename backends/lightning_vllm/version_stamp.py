"""Stamps: the version of the weights put beside the token ids of a reply, by splicing bytes.

The field is the one of the embedded engine: `weight_versions`, runs of [version, tokens], in each choice that has
`token_ids`. Inside a JSON text the quotes of "token_ids" would be escaped, so what is found is never content.
"""

from __future__ import annotations

import re

_IDS = re.compile(rb'"token_ids"\s*:\s*\[([^\]]*)\]')
_END = b"\n\n"


def stamp_versions(data: bytes, version: int) -> bytes:
    """Whole JSON, or whole events of a stream, with every list of sampled ids said to be of `version`."""

    def runs(found: re.Match[bytes]) -> bytes:
        ids = found[1]
        count = ids.count(b",") + 1 if ids.strip() else 0
        return found[0] + b',"weight_versions":' + (b"[[%d,%d]]" % (version, count) if count else b"[]")

    return _IDS.sub(runs, data)


class StampedStream:
    """Stamps server-sent events as they arrive in pieces; an event is handed on once it is whole."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can be sent now, b'' if no event has ended."""
        data = self._held + piece
        cut = data.rfind(_END) + len(_END)
        if cut < len(_END):
            self._held = data
            return b""
        self._held = data[cut:]
        return stamp_versions(data[:cut], self._version)

    def end(self) -> bytes:
        """What is left when nothing comes any more."""
        held, self._held = self._held, b""
        return stamp_versions(held, self._version)
