"""Text that others wrote, made harmless for a terminal: what would act on it, or hide in it, becomes visible.

Agents, models and tasks write most of what a run holds. An escape sequence could move the cursor, rename the window or
forge a line; a bidirectional override shows text in another order than it has.
"""

from __future__ import annotations

import re
import unicodedata

_SUSPECT = re.compile("[^\x20-\x7e\t\n]")
#: Control and format characters (bidirectional overrides and tags among them), surrogates, line separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Format characters that join letters and pictures, and act on nothing else.
_JOINERS = frozenset("\u200c\u200d")
_FIRST_PICTURE = 0x2400


def make_visible(text: str) -> str:
    """`text` with its line ends and tabs, and everything else that is no letter, sign or space spelled out."""
    return _SUSPECT.sub(_spell, text.replace("\r\n", "\n"))


def make_line(text: str) -> str:
    """`text` as one line: line ends and tabs are spaces too."""
    return " ".join(make_visible(text).split())


def _spell(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in _JOINERS or unicodedata.category(letter) not in _HIDDEN:
        return letter
    number = ord(letter)
    if number < 0x20:
        return chr(_FIRST_PICTURE + number)  # the pictures of control characters, in their order
    return "\u2421" if number == 0x7F else f"<U+{number:04X}>"
