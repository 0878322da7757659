"""Checkpoints of a run on VERL: the model in Hugging Face format, and VERL's own shards in a subfolder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning_process import mark


class VerlCheckpoint(NamedTuple):
    version: int
    steps: int


def finish(folder: Path, done: VerlCheckpoint) -> None:
    """Mark a checkpoint as complete."""
    draft = folder / f".{mark.NAME}"
    draft.write_text(mark.text("verl", **done._asdict()))
    draft.replace(folder / mark.NAME)


def read(folder: Path) -> VerlCheckpoint:
    """What the mark says. ModelError if this is not a complete checkpoint of the VERL backend."""
    values = mark.read(folder, "verl", version=int, steps=int)
    return VerlCheckpoint(values["version"], values["steps"])
