"""The disk: whether an error means that it is full or cannot be written to, and how to say so."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

from lightning_sdk.errors import DiskError, chain, message

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNWRITABLE = frozenset({errno.EROFS, errno.EIO})
#: Primary result codes of SQLite.
_SQLITE_IOERR, _SQLITE_FULL = 10, 13
#: Messages of libraries that do not pass on the error's number.
_FULL_DISK_MESSAGES = re.compile(
    r"No space left on device|os error 28|StorageFull|Disk quota exceeded|database or disk is full"
    r"|PytorchStreamWriter failed writing|inline_container.*unexpected pos"
)


def is_full(error: BaseException) -> bool:
    """Whether this says that a disk is full, a quota used up, or a file at its largest."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL)
        or _sqlite_code(each) == _SQLITE_FULL
        or bool(_FULL_DISK_MESSAGES.search(message(each)))
        for each in chain(error, implicit=True)
    )


def trouble(error: BaseException, folder: Path | str) -> DiskError | None:
    """The error to raise when writing into `folder` failed; None if the disk is not the reason."""
    if isinstance(error, DiskError):
        return error
    full = is_full(error)
    if not full and not any(_is_unwritable(each) for each in chain(error, implicit=True)):
        return None
    what, remedy = ("is full", "Make room there") if full else ("cannot be written to", "Make it writable")
    return DiskError(f"the disk of {folder} {what} ({_free(Path(folder))}): {_reason(error)}. {remedy}")


def _is_unwritable(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _UNWRITABLE) or _sqlite_code(error) == _SQLITE_IOERR


def _sqlite_code(error: BaseException) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def _free(folder: Path) -> str:
    """How much space is free, for people to read."""
    try:
        usage = shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.exists()))
    except OSError:
        return "free space unknown"
    return f"{_size(usage.free)} of {_size(usage.total)} free"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _reason(error: BaseException) -> str:
    lines = message(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
