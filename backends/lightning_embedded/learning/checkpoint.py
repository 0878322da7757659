"""Checkpoints: a folder in Hugging Face format with the optimizer's state beside it, whole or not there at all.

Everything is written into a hidden folder inside first, flushed, and then renamed file by file; `checkpoint.json` is
the first to go and the last to come, and lists every file with its size. So a kill at any moment leaves a folder that
`read` either takes as a whole or refuses.
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
    """Have what is written survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
