"""Checkpoints of a run on VERL: the model in Hugging Face format, and VERL's own shards in a folder beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from lightning_sdk.errors import ModelError

#: Written last: where it is, everything is.
MARK = "checkpoint.json"


class Checkpoint(NamedTuple):
    version: int
    steps: int


def mark(folder: Path, version: int, steps: int) -> None:
    """Say that all of a checkpoint is there."""
    draft = folder / f".{MARK}"
    draft.write_text(json.dumps({"version": version, "steps": steps, "backend": "verl"}, indent=1) + "\n")
    draft.replace(folder / MARK)


def read(folder: Path) -> Checkpoint:
    """What was said of it; ModelError if this is no complete checkpoint of VERL's."""
    try:
        values = json.loads((folder / MARK).read_bytes())
        if values.get("backend") != "verl":
            raise ModelError(
                f"{folder} is a checkpoint of another backend: give its folder as the model of a new run, or resume "
                "with the backend that wrote it"
            )
        return Checkpoint(int(values["version"]), int(values["steps"]))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} holds no complete checkpoint ({type(error).__name__} at {MARK}); resume from an earlier one"
        ) from None
