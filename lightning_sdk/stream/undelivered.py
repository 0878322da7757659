"""Leftovers: batches that no hub took before their process ended, kept for the next process that reaches the hub.

There is a file for each client. Who writes or delivers one holds its lock, which the system takes back from a process
that is killed: so nobody takes a file that is being written, and one that its writer did not finish is taken as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from lightning_sdk.stream.sink import say_once
from lightning_sdk.stream.spool import Spool
from lightning_sdk.stream.wire import EventBatch
from lightning_sdk.system import native_threads

log = logging.getLogger("lightning_sdk.stream")

_YOUNG_SECONDS = 60.0
"""A file without content that is younger may be one that its writer has not locked yet."""
_INTERVAL_SECONDS = 30.0
"""Between two looks for what ended processes left."""


class Leftovers:
    """The leftovers for one hub."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder / "".join(c if c.isalnum() else "-" for c in address)

    def leave(self, client: bytes, batches: Iterable[EventBatch]) -> tuple[int, OSError | None]:
        """Write the batches of a client that ends; how many events could be written, and why not all."""
        written = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _exclusive(self.folder / f"{client.hex()}.spool", os.O_CREAT, fcntl.LOCK_EX) as file:
                spool = Spool(file)
                for batch in batches:
                    spool.append(batch)
                    written += batch.count
        except OSError as error:
            return written, error
        return written, None

    def deliver(self, send: Callable[[Spool], bool]) -> None:
        """Give each client's batches to `send`; once it says that they are durable, they are forgotten."""
        for path in sorted(self.folder.glob("*.spool")):
            with contextlib.suppress(OSError), _exclusive(path, 0, fcntl.LOCK_EX | fcntl.LOCK_NB) as file:
                about = os.fstat(file.fileno())
                if not about.st_nlink or (not about.st_size and time.time() - about.st_mtime < _YOUNG_SECONDS):
                    continue  # another process has delivered it just now, or is about to write it
                spool = Spool.open(file)
                if spool.events and not send(spool):
                    continue
                path.unlink()
                if spool.torn:
                    log.warning(
                        "lightning: what an ended process left for the hub was cut off, by a full disk or a kill: "
                        "its last %d bytes are lost, all others were delivered",
                        spool.torn,
                    )


class Delivery:
    """Delivers leftovers now and then, in a thread, so that the sender's own events do not wait for them."""

    def __init__(self, leftovers: Leftovers) -> None:
        self.is_under_way = False
        """Any thread."""
        self._leftovers = leftovers
        self._next = 0.0

    def begin_if_due(self, send: Callable[[Spool], bool]) -> None:
        """Start a delivery through `send`, unless one is under way or the last one began a short while ago."""
        now = time.monotonic()
        if self.is_under_way or now < self._next:
            return
        self._next = now + _INTERVAL_SECONDS
        if not self._leftovers.folder.is_dir():
            return
        self.is_under_way = True
        try:
            native_threads.start(lambda: self._deliver(send))
        except RuntimeError:  # no thread can be started now
            self.is_under_way = False

    def _deliver(self, send: Callable[[Spool], bool]) -> None:
        try:
            self._leftovers.deliver(send)
        except Exception as error:
            say_once("leftovers", "lightning: delivering what ended processes left failed: %r", error)
        finally:
            self.is_under_way = False


@contextlib.contextmanager
def _exclusive(path: Path, flags: int, lock: int) -> Iterator[IO[bytes]]:
    """The file at `path` while nobody else has it; OSError if somebody has and `lock` does not wait."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, lock)
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough: a process forked meanwhile has it open too
