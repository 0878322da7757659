"""A table of text: columns as wide as what they hold, and one that gives way where the screen is narrow."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.width import cut, display_width, pad

_GAP = 2
_LEAST = 8


def draw_table(header: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen, *, numbers: str = "") -> list[str]:
    """Lines: the header, and each row. The last column is cut where the screen is too narrow, then every line.

    `numbers`: letters in the header's order, 'r' for a column of numbers, which stand on the right.
    """
    widths = [max(map(display_width, column)) for column in zip(header, *rows, strict=True)]
    *before, last = widths
    room = screen.width - sum(before) - _GAP * len(before)
    widths = [*before, min(last, max(_LEAST, room))]
    sides = [each == "r" for each in numbers.ljust(len(widths))]
    mark = screen.sign("…", "...")
    lines = [
        (" " * _GAP)
        .join(
            pad(cut(cell, width, mark=mark), width, right=right)
            for cell, width, right in zip(row, widths, sides, strict=True)
        )
        .rstrip()
        for row in (header, *rows)
    ]
    head, *rest = (cut(line, screen.width, mark=mark) for line in lines)
    return [screen.paint(head, "dim"), *rest]
