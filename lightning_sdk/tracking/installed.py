"""Installed trackers, by the names that `--log-to` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from lightning_sdk.errors import SettingError
from lightning_sdk.tracking.tracker import GROUP, Tracker

_OURS = "lightning-agent-sdk"


@dataclass(frozen=True, slots=True)
class ChosenTracker:
    """A tracker that a run is logged to."""

    name: str
    project: str
    """The project, experiment or folder that was named with it; '' if none was."""
    tracker: Tracker


def make_trackers(log_to: str | Sequence[str]) -> list[ChosenTracker]:
    """The trackers of 'NAME' or 'NAME:PROJECT' each.

    Raises:
        SettingError: one is not known, was named twice, or could not log, since its package or its key is missing.
    """
    made: list[ChosenTracker] = []
    for each in [log_to] if isinstance(log_to, str) else log_to:
        name, _, project = each.partition(":")
        if any(name == other.name for other in made):
            raise SettingError(f"log_to: {name!r} was given twice; leave one out")
        made.append(ChosenTracker(name, project, _load(name)(project)))
    return made


def _load(name: str) -> Callable[[str], Tracker]:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = found.get(name)
    if entry is None:
        several = "; name each one separately: --log-to A --log-to B, or a list" if "," in name else ""
        known = ", ".join(sorted(found)) or "none"
        raise SettingError(f"log_to={name!r}: no tracker has this name; installed: {known}{several}")
    try:
        make: Callable[[str], Tracker] = entry.load()
    except ImportError as error:
        package = _package(entry, error)
        raise SettingError(
            f"log_to={name!r} needs {error.name or name}, which cannot be imported by {sys.executable} ({error}): "
            f"pip install '{package}'"
        ) from None
    return make


def _package(entry: EntryPoint, error: ImportError) -> str:
    if entry.dist is not None and entry.dist.name == _OURS:
        return f"{_OURS}[{entry.name}]"
    return (error.name or entry.name).partition(".")[0]
