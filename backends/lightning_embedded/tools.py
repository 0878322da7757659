"""Tool calls in Hermes format: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` in a completion's text.

`arguments` is the very text that was sampled, so a template that prints it renders the same completion again. A call
that is not well-formed stays where it was, as text.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field

from lightning_embedded.text import partial

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str
    """A JSON object, verbatim."""
    id: str = field(default_factory=lambda: "call_" + uuid.uuid4().hex[:24])


class ToolReader:
    """Splits growing text into content and calls."""

    def __init__(self) -> None:
        self._held = ""
        self._blank = ""
        self._solid = False
        self._inside = False
        self.calls = 0

    def feed(self, text: str, last: bool = False) -> list[str | ToolCall]:
        """What `text` adds for certain, in order: pieces of content and whole calls. `last`: nothing follows."""
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

    def _next(self, found: list[str | ToolCall]) -> bool:
        """Move past one tag, if a whole one is there."""
        if not self._inside:
            at = self._held.find(OPEN)
            cut = at if at >= 0 else len(self._held) - partial(self._held, OPEN)
            self._content(found, self._held[:cut])
            self._held = self._held[cut:]
            self._inside = at >= 0
        at = self._held.find(CLOSE)
        if not self._inside or at < 0:
            return False
        whole, self._held = self._held[: at + len(CLOSE)], self._held[at + len(CLOSE) :]
        self._inside = False
        call = parse_call(whole[len(OPEN) : -len(CLOSE)])
        if call is None:
            self._content(found, whole)
        else:
            found.append(call)
            self.calls += 1
            self._blank, self._solid = "", False
        return True

    def _content(self, found: list[str | ToolCall], text: str) -> None:
        """Content as it is, but white space alone between calls is only layout and waits for something to follow."""
        text = self._blank + text
        self._solid = self._solid or not (not text or text.isspace())
        if self._solid and text:
            found.append(text)
        self._blank = "" if self._solid else text


def split(text: str) -> tuple[str | None, list[ToolCall]]:
    """Content and calls of a whole completion. Content is None when there are only calls."""
    if OPEN not in text:
        return text, []
    pieces = ToolReader().feed(text, last=True)
    calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
    content = "".join(piece for piece in pieces if isinstance(piece, str))
    return content or (None if calls else ""), calls


def parse_call(body: str) -> ToolCall | None:
    """The call of `{"name": text, "arguments": {object}}`; None if it is anything else."""
    members = _members(body)
    if members is None or "name" not in members or "arguments" not in members:
        return None
    name, arguments = json.loads(members["name"]), members["arguments"]
    if not isinstance(name, str) or not name or not arguments.startswith("{"):
        return None
    return ToolCall(name, arguments)


def _members(body: str) -> dict[str, str] | None:
    """Key -> text of the value, for each member of a JSON object; None if it is not one."""
    at = _skip(body, 0)
    if body[at : at + 1] != "{":
        return None
    members: dict[str, str] = {}
    while True:
        try:
            key, at = _DECODER.raw_decode(body, _skip(body, at + 1))
            at = _skip(body, at)
            start = _skip(body, at + 1)
            if not isinstance(key, str) or body[at : at + 1] != ":":
                return None
            _, end = _DECODER.raw_decode(body, start)
        except (ValueError, RecursionError):
            return None
        members[key] = body[start:end]
        at = _skip(body, end)
        if body[at : at + 1] == "}":
            return members if _skip(body, at + 1) == len(body) else None
        if body[at : at + 1] != ",":
            return None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
