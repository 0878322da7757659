"""The mark of a checkpoint: a file that names its backend and is written last, so a folder with it is complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_sdk.errors import ModelError

NAME = "checkpoint.json"


def text(backend: str, **values: Any) -> str:
    """The content of the file."""
    return json.dumps({"backend": backend, **values}, indent=1) + "\n"


def read(folder: Path, backend: str, **kinds: type) -> dict[str, Any]:
    """The values in a checkpoint's mark, which must have these types.

    ModelError if there is no valid mark, or if it is from another backend.
    """
    try:
        values: dict[str, Any] = json.loads((folder / NAME).read_bytes())
        wrote = values.get("backend", "embedded")  # early checkpoints do not name it
        if wrote == backend and not all(isinstance(values.get(name), kind) for name, kind in kinds.items()):
            raise ValueError
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{folder} holds no complete checkpoint ({type(error).__name__} at {NAME}); resume from an earlier one"
        ) from None
    if wrote != backend:
        raise ModelError(
            f"{folder} is a checkpoint of the {wrote} backend: resume with that one, or give the folder as the model "
            "of a new run"
        )
    return values
