"""Checkpoints: the folders `checkpoints/step-00040` of a run, each there complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path


class Checkpoints:
    """Checkpoints of one run."""

    def __init__(self, run: Path) -> None:
        self._folder = run / "checkpoints"

    def name(self, step: int) -> str:
        """The checkpoint of `step`, relative to the run."""
        return f"checkpoints/step-{step:05d}"

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a folder, then give it its name. What is written in part is taken away again."""
        final = self._folder.parent / self.name(step)
        partial = final.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            write(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # where the disk is full, the report needs the room
            raise
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        return final

    def last(self) -> Path | None:
        """The newest complete checkpoint."""
        found = [path for path in self._folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
        return max(found, key=self.step, default=None)

    def last_name(self) -> str:
        """The newest complete checkpoint relative to the run, '' if there is none."""
        last = self.last()
        return self.name(self.step(last)) if last is not None else ""

    def step(self, path: Path) -> int:
        """The step after which a checkpoint was made."""
        return int(path.name.removeprefix("step-"))
