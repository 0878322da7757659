"""Where trackers keep a run: a file in its folder, with which a resumed run goes on there."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_sdk.results.run_files import TRACKERS, read_object
from lightning_sdk.tracking.installed import ChosenTracker
from lightning_sdk.tracking.tracker import TrackedPlace


class TrackerPlaces:
    """The file of one run. Each tracker's thread writes what is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def find(self, chosen: ChosenTracker) -> str:
        """The tracker's id of this run; '' if it was not logged there, or into another project."""
        found = _read(self.folder).get(chosen.name, {})
        return str(found.get("id") or "") if found.get("project") == chosen.project else ""

    def put(self, chosen: ChosenTracker, place: TrackedPlace) -> None:
        path = self.folder / TRACKERS
        with self._lock:
            places = _read(self.folder) | {chosen.name: {"project": chosen.project, **asdict(place)}}
            fresh = path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(json.dumps(places, indent=2) + "\n", encoding="utf-8")
            fresh.replace(path)


def log_to(folder: Path) -> list[str]:
    """The trackers that a run was logged to, as `--log-to` takes them."""
    found = _read(folder)
    return [f"{name}:{project}" if (project := each.get("project")) else name for name, each in found.items()]


def _read(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Tracker -> where it keeps the run."""
    found = read_object(folder / TRACKERS) or {}
    return {name: each for name, each in found.items() if isinstance(each, dict)}
