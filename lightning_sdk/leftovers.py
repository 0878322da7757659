"""Leftovers: batches that no hub took before their process ended, kept for the next process that reaches the hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lightning_sdk.spool import Spool
from lightning_sdk.wire import Batch


class Leftovers:
    """The leftovers for one hub, a file for each client."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder / "".join(c if c.isalnum() else "-" for c in address)

    def leave(self, client: bytes, batches: Iterable[Batch]) -> None:
        """Write the batches of a client that ends."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with Spool(self.folder / f"{client.hex()}.spool") as spool:
            for batch in batches:
                spool.append(batch)

    def deliver(self, send: Callable[[list[Batch]], bool]) -> None:
        """Give each client's batches to `send`; once it says that they are durable, they are forgotten."""
        for path in self._files():
            claimed = self.folder / f"{path.name.split('.')[0]}.claimed-{os.getpid()}"
            with contextlib.suppress(OSError):  # another process may have claimed it first
                path.rename(claimed)
                with Spool(claimed, read=True) as spool:
                    batches = list(spool)
                if send(batches):
                    claimed.unlink()
                else:
                    claimed.rename(path)

    def _files(self) -> Iterator[Path]:
        """What nobody has claimed, or whoever did is dead."""
        for path in sorted(self.folder.glob("*.*")) if self.folder.is_dir() else []:
            owner = path.suffix.removeprefix(".claimed-")
            if path.suffix == ".spool" or (owner.isdigit() and not _alive(int(owner))):
                yield path


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
