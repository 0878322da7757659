"""Checkpoints: the folders `checkpoints/step-00040` of a run, each there complete or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path

from lightning_hub.rollouts.plan import Plan
from lightning_sdk.errors import DiskError

GB = 1e9


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

    def check_room(self, plan: Plan, facts: Mapping[str, object], step: int) -> str:
        """A warning if the disk has no room for all checkpoints that the run writes after `step`; '' if it has.

        DiskError if it has no room for one. `facts`: the backend's.
        """
        settings, smaller = plan.settings, plan.backend.smaller_checkpoints
        size, run = float(str(facts.get("checkpoint_bytes", 0))), self._folder.parent
        every = min(settings.save_every, settings.phases.steps) if plan.deciding else settings.save_every
        free, count = shutil.disk_usage(run).free, ceil((settings.steps - step) / every) + bool(plan.deciding)
        ways = "Make room there, or name a folder on a larger disk with --runs" + (
            f", or type {smaller}" if smaller else ""
        )
        here = f"the disk of {run} has {free / GB:.1f} GB free"
        if size > free:
            raise DiskError(f"{here}, but a checkpoint of this model takes about {size / GB:.1f} GB. {ways}")
        if size * count > free:
            total = f"the {count} checkpoints of this run take about {size * count / GB:.1f} GB"
            return f"{here}, but {total}. {ways}; a larger save_every makes them fewer"
        return ""

    def last(self) -> Path | None:
        """The newest complete checkpoint."""
        return max(self._all(), key=self.step, default=None)

    def path(self, step: int) -> Path:
        """The folder of the checkpoint of `step`."""
        return self._folder.parent / self.name(step)

    def remove(self, is_useless: Callable[[int], bool]) -> None:
        """Remove the checkpoints of steps of which this holds."""
        for path in self._all():
            if is_useless(self.step(path)):
                shutil.rmtree(path)

    def _all(self) -> list[Path]:
        return [path for path in self._folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]

    def last_name(self) -> str:
        """The newest complete checkpoint relative to the run, '' if there is none."""
        last = self.last()
        return self.name(self.step(last)) if last is not None else ""

    def step(self, path: Path) -> int:
        """The step after which a checkpoint was made."""
        return int(path.name.removeprefix("step-"))
