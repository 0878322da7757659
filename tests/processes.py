"""Processes that a test has not started itself: those that one of its processes started, and whether they still run."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from tests.waiting import wait_for


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


def is_running(pid: int) -> bool:
    """Whether a process has not ended. One that has keeps its id for as long as its parent does not ask how it ended:
    for an orphan that parent is the machine's process 1, which in a container may never ask."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_until_ended(*pids: int) -> None:
    """Wait until none of these processes runs."""
    wait_for(lambda: not any(map(is_running, pids)), lambda: f"the end of {list(filter(is_running, pids))}")
