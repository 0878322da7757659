"""The width of text in columns: letters of Chinese, Japanese and Korean take two, marks above others none."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

_NONE = frozenset({"Mn", "Me", "Cf"})


def display_width(text: str) -> int:
    """Columns that one line takes."""
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def pad(text: str, width: int, *, right: bool = False) -> str:
    """`text` with spaces behind it, or before it where it stands on the right."""
    spaces = " " * max(0, width - display_width(text))
    return spaces + text if right else text + spaces


def cut(text: str, width: int, *, from_end: bool = False, mark: str = "…") -> str:
    """At most `width` columns of one line, its beginning or its end; what is left out is marked."""
    if display_width(text) <= width:
        return text
    room = width - display_width(mark)
    if room <= 0:
        return mark[: max(0, width)]
    letters = reversed(text) if from_end else iter(text)
    kept = list(_take(letters, room))
    return mark + "".join(reversed(kept)) if from_end else "".join(kept) + mark


def wrap(text: str, width: int) -> list[str]:
    """The lines of `text`, each broken at spaces, and inside a word where one is wider than all."""
    return [piece for line in text.expandtabs(4).split("\n") for piece in _wrap_line(line.rstrip(), max(2, width))]


def _wrap_line(line: str, width: int) -> Iterator[str]:
    indent = line[: len(line) - len(line.lstrip(" "))][: width // 2]
    while display_width(line) > width:
        head = "".join(_take(iter(line), width))
        space = head.rfind(" ", len(indent) + 1)
        if line[len(head) : len(head) + 1] == " ":
            space = len(head)
        end = space if space > len(indent) else len(head)
        yield line[:end].rstrip()
        line = indent + line[end:].lstrip(" ")
    yield line


def _take(letters: Iterator[str], width: int) -> Iterator[str]:
    """Letters for as long as they fit, at least one."""
    used, first = 0, True
    for letter in letters:
        used += _letter_width(letter)
        if used > width and not first:
            return
        first = False
        yield letter


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in _NONE:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
