"""The lock on a run's folder: one process at a time writes there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lightning_sdk.errors import HubError
from lightning_sdk.folders import refuse_links


def locked(folder: Path) -> int:
    """A file whose lock goes with this process, however it ends; close it to give the folder free.

    HubError if another process has the folder; the message names it. SettingError if something leads out of it.
    """
    refuse_links(folder)
    file = os.open(folder / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(file)
        raise HubError(f"another hub (process {pid}) has the folder {folder}: stop it, or choose another run") from None
    os.ftruncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    return file
