"""Folders that a user names: the one of a new run, of an earlier one, and any that is made for them."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lightning_sdk.errors import DiskError, SettingError

PRIVATE = 0o700
"""Mode of new folders: other users of this machine must not read what agents were asked and said."""


def make_folder(path: str | Path, option: str) -> Path:
    """The folder at this path, made where it does not exist.

    Raises:
        SettingError: it cannot be made or written into; the message names `option`, which chooses another.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    except OSError as error:
        raise _refuse(folder, error, option) from None
    return folder


def make_run_folder(runs: str | Path, name: str) -> Path:
    """A new folder for a run; where the name is taken, the time is added to it.

    Raises:
        SettingError: the name is not that of one folder, or the folder cannot be made.
    """
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise SettingError(
            f"name={name!r}: expected the name of a folder inside {runs}, without slashes; to keep the run elsewhere, "
            "name its parent folder: runs=FOLDER (--runs FOLDER)"
        )
    parent = make_folder(runs, "runs=FOLDER (--runs FOLDER)")
    for folder in map(parent.joinpath, _names(name)):
        try:
            folder.mkdir(PRIVATE)
        except FileExistsError:
            continue
        except OSError as error:
            raise _refuse(folder, error, "runs=FOLDER (--runs FOLDER)") from None
        return folder
    raise AssertionError("unreachable: there are names without end")


def _names(name: str) -> itertools.chain[str]:
    dated = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return itertools.chain((name, dated), (f"{dated}-{number}" for number in itertools.count(2)))


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """A folder that is gone afterwards.

    Raises:
        DiskError: the disk has no room for it.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=f"lightning-{what}-")
    except OSError as error:
        raise DiskError(
            f"no temporary folder can be made: {error}. Make room there, or name another place with TMPDIR=FOLDER"
        ) from None
    with made as folder:
        yield Path(folder)


def find_run_folder(run: str | Path, runs: str | Path = "runs") -> Path:
    """The folder of an earlier run, by its path or by its name in the folder of runs.

    Raises:
        SettingError: there is no such run.
    """
    for path in (Path(run).expanduser(), Path(runs).expanduser() / run):
        if (path / "config.json").is_file() or (path / "hub.sqlite").is_file():
            return path.absolute()
    raise SettingError(
        f"{run} is not the folder or the name of a run: there is no config.json in it; `lightning-sdk runs` lists "
        f"the runs in {runs}"
    )


def refuse_links(folder: Path) -> None:
    """SettingError if anything in a run's folder leads out of it, since resuming the run would write there.

    Folders may come from elsewhere, in archives and copies, and a resumed run replaces, truncates and deletes files.
    """
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            state = path.lstat()
            if stat.S_ISDIR(state.st_mode) or (stat.S_ISREG(state.st_mode) and state.st_nlink == 1):
                continue
            what = _kind(path, state)
            raise SettingError(
                f"{path} is {what}: a resumed run writes only in its own folder; resume a copy instead, made with "
                f"cp -rL {folder} COPY"
            )


def _kind(path: Path, state: os.stat_result) -> str:
    if stat.S_ISLNK(state.st_mode):
        return f"a link to {path.readlink()}"
    return (
        "a file that has a second name elsewhere (a hard link)" if stat.S_ISREG(state.st_mode) else "not a regular file"
    )


def _refuse(folder: Path, error: OSError, option: str) -> SettingError:
    file = next((each for each in (folder, *folder.parents) if each.is_file()), None)
    reason = f"{file} is a file" if file else error.strerror or str(error)
    return SettingError(f"cannot make the folder {folder}: {reason}; choose another with {option}")
