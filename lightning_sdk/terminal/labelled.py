"""Text beside a label, as the terminal shows facts: every line of it begins in one column."""

from __future__ import annotations

from lightning_sdk.terminal.screen import Screen
from lightning_sdk.terminal.visible_text import make_visible
from lightning_sdk.terminal.width import cut, pad, wrap

INDENT = 10
"""Columns of a label."""


def label_lines(label: str, text: str, screen: Screen, colour: str = "", most: int = 0) -> list[str]:
    """The lines of `text`, made visible and broken to the screen's width, behind the label.

    `most`: show no more lines than these, and say how many are left out and how to see them; 0 for all.
    """
    lines = wrap(make_visible(text), screen.width - INDENT) if text else [""]
    if most and len(lines) > most:
        left_out = f"... {len(lines) - most + 1} more lines (--whole)"
        lines = [*lines[: most - 1], left_out]
    head = pad(cut(make_visible(label), INDENT - 1, mark=screen.sign("…", ".")), INDENT)
    return [
        (screen.paint(head, "dim") if not at else " " * INDENT) + screen.paint(line, colour)
        for at, line in enumerate(lines)
    ]
