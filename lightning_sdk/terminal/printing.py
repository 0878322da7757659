"""Printing to a terminal, a file or a pipe: where its encoding lacks a letter, a question mark takes its place."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from lightning_sdk.terminal.visible_text import make_visible


def print_text(text: object, stream: TextIO | None = None) -> None:
    """Print what others may have written a part of, made harmless."""
    print_lines([make_visible(str(text))], stream)


def print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print lines that are harmless already, and may have colours."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "replace").decode(encoding), file=stream, flush=True)
