"""Processes that a test, or a process that it started, has started in turn."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def descendants(name: str, root: int) -> list[int]:
    """Ids of the processes with this in their command line that descend from process `root`."""
    parents, named = dict[int, int](), list[int]()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            pid, words = int(entry.name), (entry / "cmdline").read_bytes()
            parents[pid] = int(re.findall(r"PPid:\s+(\d+)", (entry / "status").read_text())[0])
            if name.encode() in words:
                named.append(pid)

    def comes_from_root(pid: int) -> bool:
        parent = parents.get(pid, 0)
        return parent == root or (parent != 0 and comes_from_root(parent))

    return [pid for pid in named if comes_from_root(pid)]
