"""Whether a process on this machine is paused: stopped with Ctrl-Z, or by a debugger."""

from __future__ import annotations

from pathlib import Path


def is_stopped(pid: int) -> bool:
    """False also where the system does not say: it is asked as Linux answers."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # After the name in parentheses, which may hold some itself.
    return status.rpartition(b")")[2].split()[0] in {b"T", b"t"}
