"""The processes of a run on this machine: the hub and what it started, with their memory and CPU time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
#: Parts of a command line -> what the process is.
_NAMES = (
    ("lightning_hub", "hub"),
    ("lightning_embedded", "engine and learner"),
    ("lightning_verl", "learner (VERL)"),
    ("lightning_vllm", "engine (vLLM)"),
    ("vllm", "engine (vLLM)"),
    ("ray", "Ray"),
)
_MOST = 64


def describe_processes(folder: Path) -> list[dict[str, Any]]:
    """The process that runs the agent, the hub, and everything that the hub started; none where /proc does
    not tell, or the hub has ended."""
    try:
        pid = int((folder / "hub.lock").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return []
    if b"lightning_hub" not in _command(pid):
        return []
    children = _children()
    found: list[dict[str, Any]] = []
    left = [(pid, 0)]
    while left and len(found) < _MOST:
        number, depth = left.pop()
        found.append(_describe(number, depth))
        left += [(each, depth + 1) for each in reversed(children.get(number, []))]
    agent = _parent(pid)
    first = [{**_describe(agent, 0), "name": "agent and runners"}] if agent > 1 else []
    return [*first, *(each for each in found if each["memory"] is not None)]


def _describe(pid: int, depth: int) -> dict[str, Any]:
    command = _command(pid).replace(b"\0", b" ").decode(errors="replace").strip()
    name = next((name for part, name in _NAMES if part in command), Path(command.split(" ")[0]).name or str(pid))
    return {"pid": pid, "depth": depth, "name": name, "memory": _memory(pid), "cpu_seconds": _cpu_seconds(pid)}


def _children() -> dict[int, list[int]]:
    """Process -> those that it started."""
    found: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*"):
        found.setdefault(_parent(int(path.name)), []).append(int(path.name))
    return {parent: sorted(pids) for parent, pids in found.items()}


def _command(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if len(fields) > 1 else 0


def _cpu_seconds(pid: int) -> float | None:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if len(fields) > 12 else None


def _memory(pid: int) -> int | None:
    """Resident bytes."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
