"""A third party's tracker, as the tests install one: it writes what it is told into `notes.jsonl`.

What stands behind its name chooses how it behaves: 'closed' cannot start, 'forgetful' loses steps, and 'patient' waits
with each step until the file `go` is there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_sdk.results.sample import RolloutSample
from lightning_sdk.tracking.tracker import TrackedPlace, TrackedRun


class NoteTracker:
    def __init__(self, project: str) -> None:
        self._project = project

    def start(self, run: TrackedRun) -> TrackedPlace:
        if self._project == "closed":
            raise ConnectionError("nobody there\nand a long story")
        self._note("start", name=run.name, step=run.step, earlier=run.earlier, config=dict(run.config))
        return TrackedPlace(run.earlier or "note-1", "cat notes.jsonl")

    def log_step(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._project == "forgetful":
            raise ValueError(f"no room for step {step}")
        end = time.monotonic() + 60.0
        while self._project == "patient" and not Path("go").exists() and time.monotonic() < end:
            time.sleep(0.01)
        self._note("step", step=step, scalars=dict(scalars))

    def log_evaluation(self, step: int, scalars: Mapping[str, float], samples: Sequence[RolloutSample]) -> None:
        self._note("evaluation", step=step, scalars=dict(scalars), samples=[asdict(each) for each in samples])

    def finish(self, status: str, summary: Mapping[str, float | str]) -> None:
        self._note("finish", status=status, summary=dict(summary))

    def _note(self, what: str, **values: object) -> None:
        with Path("notes.jsonl").open("a") as file:
            file.write(json.dumps({"what": what, **values}) + "\n")


def install(site: Path) -> None:
    """Put this tracker, and one whose package is missing, into a folder as a package manager would."""
    facts = site / "note_tracker-1.0.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(__file__, site)
    (site / "lonely_tracker.py").write_text("import package_that_nobody_has\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: note-tracker\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[lightning_sdk.trackers]\nnotes = note_tracker:NoteTracker\nlonely = lonely_tracker:Tracker\n"
    )
