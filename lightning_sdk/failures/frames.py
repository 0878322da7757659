"""Frames: which lines of a traceback are the user's own, and how a line is shown.

An error that a library raises ends in the library's frames; what helps is the line of the user that led there.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
#: In a clone the integrations and backends lie next to the SDK; in an installation everything is in site-packages.
_OURS = tuple(f"{folder}{os.sep}" for folder in (_HERE, _HERE.parent / "integrations", _HERE.parent / "backends"))
_LIBRARIES = (os.path.split(os.__file__)[0], sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
_PYTHON = tuple(f"{Path(folder)}{os.sep}" for folder in _LIBRARIES)
_PACKAGES = frozenset({"site-packages", "dist-packages"})
#: Code without a file that is the user's all the same: exec() of what a model wrote, a shell, a notebook.
_TYPED = ("<string>", "<stdin>", "<ipython", "<input")
_FIRST, _LAST = 1, 3
"""How many lines are shown from the beginning and from the end of many."""


def own_lines(error: BaseException, *, library: bool = True) -> list[str]:
    """The user's lines that led to `error`, the innermost last; with `library`, then the library's line that raised it.

    Where all code is in installed packages, the lines of the agent's own file: the first one after ours.
    """
    found = traceback.extract_tb(error.__traceback__)
    entered = [frame for frame in found if not _is_ours(frame.filename)]
    own = [frame for frame in entered if not _is_library(frame.filename)]
    if not own:
        installed = [frame for frame in entered if not frame.filename.startswith(_PYTHON)]
        own = [frame for frame in installed if frame.filename == installed[0].filename]
    lines = [_line(frame) for frame in own]
    if len(lines) > _FIRST + _LAST:
        lines = [*lines[:_FIRST], f"... {len(lines) - _FIRST - _LAST} more lines ...", *lines[-_LAST:]]
    if library and entered and entered[-1] not in own:
        lines.append(f"{entered[-1].filename}:{entered[-1].lineno} in {entered[-1].name}")
    return lines


def _line(frame: traceback.FrameSummary) -> str:
    source = f": {frame.line}" if frame.line else ""
    return f"{frame.filename}:{frame.lineno} in {frame.name}{source}"


def _is_ours(path: str) -> bool:
    return path.startswith(_OURS)


def _is_library(path: str) -> bool:
    if path.startswith("<"):
        return not path.startswith(_TYPED)
    return path.startswith(_PYTHON) or not _PACKAGES.isdisjoint(Path(path).parts)
