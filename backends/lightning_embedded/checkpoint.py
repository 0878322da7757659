"""Checkpoints: a folder in Hugging Face format with the optimizer's state beside it, whole or not there at all.

Everything is written into a hidden folder inside first, flushed, and then renamed file by file; `checkpoint.json` is
the first to go and the last to come, and lists every file with its size. So a kill at any moment leaves a folder that
`read` either takes as a whole or refuses.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lightning_sdk.errors import ModelError

#: Written last: where it is, everything is.
MARK = "checkpoint.json"
_STATE = "learner.pt"
_DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder held."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]) -> None:
    """Put a checkpoint into `folder`, which exists, in place of the one that it may hold."""
    draft = folder / _DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    torch.save(dict(state), draft / _STATE)
    sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
    (draft / MARK).write_text(json.dumps({"version": state["version"], "files": sizes}, indent=1) + "\n")
    for file in draft.iterdir():
        _flush(file)
    (folder / MARK).unlink(missing_ok=True)
    _flush(folder)
    for name in [*sizes, MARK]:
        (draft / name).replace(folder / name)
    _flush(folder)
    draft.rmdir()


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; ModelError if there is none, or only part of one."""
    try:
        mark = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} holds no complete checkpoint ({type(error).__name__} at {MARK}); resume from an earlier one"
        ) from None
    for name, size in mark["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise ModelError(f"checkpoint {folder} is damaged: {name} is not the {size:,} bytes that were written")
    state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return Checkpoint(model.state_dict(), state)


def _flush(path: Path) -> None:
    """Have what is written survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
