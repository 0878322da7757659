"""The lock on a run's folder: one process at a time writes there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from lightning_sdk.errors import HubError
from lightning_sdk.system.clock import Clock
from lightning_sdk.system.folders import refuse_links

_ENDING = "ending"
#: How long to wait for a hub that is ending (after its training was killed it saves what was learned), and for any
#: other, which may just have been told to end.
_ENDING_HUB_SECONDS, _OTHER_HUB_SECONDS = 45.0, 1.0


def lock_folder(folder: Path) -> int:
    """Lock the folder for this process, until it ends or the returned file is closed.

    Waits for a hub that is ending. HubError if another one is using the folder; the message names its process.
    SettingError if a link leads out of the folder.
    """
    refuse_links(folder)
    file = os.open(folder / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    clock = Clock()
    while not _is_taken(file):
        pid, _, state = os.pread(file, 40, 0).decode(errors="replace").strip().partition(" ")
        if clock.read() > (_ENDING_HUB_SECONDS if state == _ENDING else _OTHER_HUB_SECONDS):
            os.close(file)
            raise HubError(_describe_holder(folder, pid or "unknown", state))
        time.sleep(0.05)
    _write(file, str(os.getpid()))
    return file


def mark_ending(file: int) -> None:
    """Let others wait for the end of this process."""
    with contextlib.suppress(OSError):  # a full disk: then they do not wait
        _write(file, f"{os.getpid()} {_ENDING}")


def _is_taken(file: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: int, text: str) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)


def _describe_holder(folder: Path, pid: str, state: str) -> str:
    if state == _ENDING:
        return (
            f"the hub of an earlier training (process {pid}) is still saving in {folder}: try again once it has ended"
        )
    return f"another hub (process {pid}) is using the folder {folder}: stop it, or choose another run"
