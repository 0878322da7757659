"""Checkpoints: a folder in Hugging Face format, with the optimizer's state, that is either complete or refused.

Everything is first written to a hidden subfolder, flushed, and then moved file by file. `checkpoint.json` is removed
first and moved last, and lists every file with its size. So `read` either accepts or refuses the folder as a whole,
even if the process is killed at any moment.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lightning_process import mark
from lightning_sdk.errors import ModelError

_STATE = "learner.pt"
_DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The content of a checkpoint."""

    weights: dict[str, Tensor]
    state: dict[str, Any]


def write(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]) -> None:
    """Write a checkpoint to `folder`, which must exist, replacing any previous one."""
    draft = folder / _DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    torch.save(dict(state), draft / _STATE)
    sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
    (draft / mark.NAME).write_text(mark.text("embedded", version=state["version"], files=sizes))
    for file in draft.iterdir():
        _flush(file)
    (folder / mark.NAME).unlink(missing_ok=True)
    _flush(folder)
    for name in [*sizes, mark.NAME]:
        (draft / name).replace(folder / name)
    _flush(folder)
    draft.rmdir()


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; ModelError if there is none, or only part of one."""
    files = mark.read(folder, "embedded", files=dict)["files"]
    for name, size in files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise ModelError(f"checkpoint {folder} is damaged: {name} is not the {size:,} bytes that were written")
    state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return Checkpoint(model.state_dict(), state)


def _flush(path: Path) -> None:
    """Flush a file or folder, so that it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
