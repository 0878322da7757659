"""Reads tool calls from a completion's text while it grows: content and calls, in order.

`tool_forms.py` knows what calls look like. A malformed call stays in the content as text.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_embedded.text.tool_forms import Form
from lightning_embedded.text.tool_syntax import ToolCall


class ToolReader:
    """Splits growing text into content and calls.

    Args:
        form: How the model writes calls.
        tools: Name -> JSON schema of the parameters, for each offered tool.
        short: Use ids of nine letters, which some templates require.
    """

    def __init__(self, form: Form, tools: Mapping[str, Any], *, short: bool = False) -> None:
        self._form, self._tools, self._short = form, tools, short
        self._held = ""
        self._blank = ""
        self._solid = False
        self.calls = 0

    def feed(self, text: str, last: bool = False) -> list[str | ToolCall]:
        """The content and complete calls that `text` adds, in order. `last`: nothing follows."""
        self._held += text
        found: list[str | ToolCall] = []
        while self._next(found):
            pass
        if last:
            self._content(found, self._held)
            if self._blank and not self.calls:
                found.append(self._blank)
            self._held = self._blank = ""
        return found

    def split(self, text: str) -> tuple[str | None, list[ToolCall]]:
        """Content and calls of a complete completion. Content is None if there are only calls."""
        pieces = self.feed(text, last=True)
        calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
        content = "".join(piece for piece in pieces if isinstance(piece, str))
        return content or (None if calls else ""), calls

    def _next(self, found: list[str | ToolCall]) -> bool:
        """Consume one call, or what looked like one, if it is complete."""
        start, end = self._form.begins(self._held, alone=not self._solid, more=self.calls > 0)
        self._content(found, self._held[:start])
        self._held = self._held[start:]
        if not end:
            return False
        taken = self._form.take(self._held, self._tools)
        if taken is None:
            return False
        whole, self._held = self._held[: taken.length], self._held[taken.length :]
        if not taken.calls:
            self._content(found, whole)
            return True
        found.extend(replace(call, id=call.id or _new_id(self._short)) for call in taken.calls)
        self.calls += len(taken.calls)
        self._blank, self._solid = "", False
        return True

    def _content(self, found: list[str | ToolCall], text: str) -> None:
        """Add content. White space between calls is layout, and is held back until other content follows."""
        text = self._blank + text
        self._solid = self._solid or not (not text or text.isspace())
        if self._solid and text:
            found.append(text)
        self._blank = "" if self._solid else text


def _new_id(short: bool) -> str:
    letters = uuid.uuid4().hex
    return letters[:9] if short else "call_" + letters[:24]
