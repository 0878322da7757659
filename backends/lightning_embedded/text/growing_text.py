"""Text of a growing token sequence: incremental decoding that never shows half a character or half a stop string."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

#: Tokens that are decoded again as context: enough for a four-byte character and a leading-space marker.
_CONTEXT = 6
#: A character has at most four bytes, so at most three ids that do not finish it.
_UNFINISHED = 3
_BROKEN = "\ufffd"


class Decode:
    """Decodes ids with one tokenizer. Special tokens are shown unless they end the sequence."""

    def __init__(self, tokenizer: Any, ends: Collection[int]) -> None:
        self.ends = frozenset(ends)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._decode: Callable[[list[int]], str]
        if backend is not None:
            self._decode = lambda ids: str(backend.decode(ids, skip_special_tokens=False))
        else:
            self._decode = lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
        self._single: dict[int, str] = {}

    def __call__(self, ids: list[int]) -> str:
        return self._decode(ids)

    def body(self, ids: list[int]) -> str:
        """Text of a completion without the id that ended it."""
        return self._decode(ids[:-1] if ids and ids[-1] in self.ends else ids)

    def token(self, token: int) -> str:
        """Text of one id on its own."""
        text = self._single.get(token)
        if text is None:
            text = self._single[token] = self._decode([token])
        return text


class Text:
    """Takes ids and returns the text that can no longer change.

    Text is held back while it ends in an incomplete character or in what may become a stop string. A stop string and
    what follows it are never returned.
    """

    def __init__(self, decode: Decode, stop: tuple[str, ...] = (), stop_ids: frozenset[int] = frozenset()) -> None:
        self._decode = decode
        self._stop = stop
        self._ends = decode.ends | stop_ids
        self._ids: list[int] = []
        self._from = 0  # ids before this are final
        self._held = ""
        self.stopped = False

    def feed(self, ids: list[int]) -> str:
        """The text that `ids` add and that can no longer change."""
        if self.stopped:
            return ""
        self._ids.extend(token for token in ids if token not in self._ends)
        self._held += self._take_complete()
        return self._release(last=False)

    def finish(self) -> str:
        """The text that was held back, when no more ids follow."""
        if self.stopped:
            return ""
        self._held += self._between(len(self._ids))
        self._from = len(self._ids)
        return self._release(last=True)

    def _take_complete(self) -> str:
        """Text of the new ids, without up to three at the end that may begin a character."""
        for end in range(len(self._ids), max(self._from, len(self._ids) - _UNFINISHED - 1), -1):
            text = self._between(end)
            if not text.endswith(_BROKEN):
                self._from = end
                return text
        end = len(self._ids) - _UNFINISHED
        if end <= self._from:
            return ""
        text = self._between(end)  # too many for one character: the earlier ones are invalid
        self._from = end
        return text

    def _between(self, end: int) -> str:
        start = max(0, self._from - _CONTEXT)
        before = self._decode(self._ids[start : self._from])
        return self._decode(self._ids[start:end])[len(before) :]

    def _release(self, last: bool) -> str:
        text, keep = self._held, 0
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text]
        if found:
            # The stop string that is complete first wins, so the cut does not depend on how the ids came in.
            text, self.stopped = text[: min(found)[1]], True
        elif not last:
            keep = max((partial(text, stop) for stop in self._stop), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]


def partial(text: str, mark: str) -> int:
    """Length of the longest proper prefix of `mark` that `text` ends with."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
