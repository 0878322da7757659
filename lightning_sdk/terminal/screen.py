"""The screen: how wide it is, whether it shows colours, and which signs it can show."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TextIO

#: Columns where nothing says how many there are: a file or a pipe, whose reader wraps lines as it likes.
_UNBOUNDED = 10_000
_RESET = "\x1b[0m"
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35"}
#: Colours of roles, in the order in which they are met.
ROLE_COLOURS = ("blue", "magenta", "yellow", "green")


@dataclass(frozen=True, slots=True)
class Screen:
    """Where text is shown."""

    width: int = _UNBOUNDED
    """Columns."""
    colours: bool = False
    signs: bool = True
    """Whether it can show more than ASCII."""

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """Of a stream: colours only on a terminal, and not where NO_COLOR says otherwise."""
        terminal = stream.isatty()
        given = os.environ.get("COLUMNS", "")
        bounded = terminal or (given.isdecimal() and int(given) > 0)
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return cls(
            width=max(20, shutil.get_terminal_size().columns) if bounded else _UNBOUNDED,
            colours=terminal and not plain,
            signs=_shows_signs(stream.encoding),
        )

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, or 'bold' or 'dim'; as it is where there are no colours."""
        return f"\x1b[{_CODES[colour]}m{text}{_RESET}" if self.colours and colour and text else text

    def sign(self, sign: str, plain: str) -> str:
        """`sign`, or what stands for it in ASCII."""
        return sign if self.signs else plain

    def room(self, most: int) -> int:
        """Columns for something that is at most so wide."""
        return min(self.width, most)


def _shows_signs(encoding: str | None) -> bool:
    try:
        "▁█├─…".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
