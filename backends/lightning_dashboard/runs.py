"""The runs that a dashboard shows: run folders, and every run in folders of runs, found again as new ones begin."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lightning_dashboard.hub_watch import HubWatch
from lightning_dashboard.run_reader import RunReader
from lightning_sdk.results.run_files import CONFIG

#: Runs whose rollouts are kept in memory.
_MAX_FULL = 6


class UnknownRun(LookupError):
    """No run has this name."""


@dataclass(slots=True)
class Runs:
    """Runs by name. Any thread may ask."""

    places: list[Path]
    """Run folders and folders of runs."""
    watched: HubWatch | None = None
    """The hub of a run that is under way, where its address is known."""
    _open: dict[Path, RunReader] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def folders(self) -> dict[str, Path]:
        """Name -> folder, the newest first. A name that several runs have gets as many of the folders above it as it
        takes to tell them apart."""
        found = list(dict.fromkeys(path for place in self.places for path in _runs_in(place.absolute())))
        found.sort(key=lambda path: -_change_time(path))
        return {_name_among(found, path): path for path in found}

    def name_of(self, folder: Path) -> str:
        """What the run in this folder is called here. UnknownRun if it is none of these."""
        wanted = folder.absolute()
        for name, path in self.folders().items():
            if path == wanted:
                return name
        raise UnknownRun(f"{folder} is not one of these runs")

    def open(self, name: str) -> RunReader:
        """UnknownRun if no run has this name."""
        folder = self.folders().get(name)
        if folder is None:
            raise UnknownRun(f"no run is called {name!r} here")
        with self._lock:
            found = self._open.setdefault(folder, RunReader(name, folder, self._hub_of(folder)))
            full = sorted((each for each in self._open.values() if each.used), key=lambda each: each.used)
            for each in full[:-_MAX_FULL]:
                each.drop_rollouts()
        return found

    def _hub_of(self, folder: Path) -> HubWatch | None:
        return self.watched if self.watched is not None and self.watched.folder == folder else None


def _name_among(folders: Iterable[Path], folder: Path) -> str:
    """The shortest end of a path that no other of the folders has."""
    ends = ("/".join(folder.parts[-count:]) for count in range(1, len(folder.parts)))
    others = [f"/{each}" for each in folders if each != folder]
    return next((end for end in ends if not any(each.endswith(f"/{end}") for each in others)), str(folder))


def _runs_in(place: Path) -> Iterable[Path]:
    if is_run(place):
        return [place]
    return [path for path in place.iterdir() if is_run(path)] if place.is_dir() else []


def is_run(folder: Path) -> bool:
    """Whether a run was written there."""
    return (folder / CONFIG).is_file() or (folder / "hub.sqlite").is_file()


def _change_time(folder: Path) -> float:
    try:
        return max((folder / name).stat().st_mtime for name in (CONFIG, "hub.sqlite") if (folder / name).exists())
    except (OSError, ValueError):
        return 0.0
