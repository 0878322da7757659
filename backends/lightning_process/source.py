"""Where a model's files are: a model with a name here, a folder, a GGUF file, or a hub name. Needs no torch."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from lightning_sdk.errors import ModelError
from lightning_sdk.hub.discovery import state_folder

#: SmolLM2-135M-Instruct, which `smollm2.py` converts.
SMOLLM2 = "smollm2"

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Source:
    """The arguments for `from_pretrained`."""

    name: str
    """As the user wrote it."""
    path: str
    """Folder or hub name."""
    gguf: str | None = None
    """File in the folder that contains config, weights and tokenizer."""
    local: bool = True
    """Whether it can be loaded without a network."""
    converted: bool = False
    """Whether `smollm2.provide` puts its files there when they are first needed."""


def locate(name: str) -> Source:
    """The source of `name`. ModelError says what is missing. A hub name is not looked up here."""
    if name == "spark":
        return Source(name, str(_check_folder(name, _spark())))
    if name == SMOLLM2 and not Path(name).is_dir():
        return Source(name, str(state_folder() / "models" / "SmolLM2-135M-Instruct"), converted=True)
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(name, str(_check_folder(name, path)))
    if path.is_file():
        if path.suffix == ".gguf":
            return Source(name, str(path.parent), gguf=path.name)
        raise ModelError(f"model {name!r} is a file: give the folder that contains config.json, or a .gguf file")
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"model {name!r}: there is no such folder; give 'spark', 'smollm2', a folder in Hugging Face format, or a "
            "hub name"
        )
    return Source(name, name, local=False)


def _check_folder(name: str, folder: Path) -> Path:
    """The folder, if it contains a model; otherwise ModelError names everything that is missing."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / each).is_file() for each in _WEIGHTS):
        missing.append("weights (model.safetensors)")
    if not any((folder / each).is_file() for each in _TOKENIZERS):
        missing.append("a tokenizer (tokenizer.json)")
    if missing:
        what = f"folder {folder} is not a model in Hugging Face format: no {', no '.join(missing)}"
        raise ModelError(f"model {name!r}: {what}")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ModelError(f"model {name!r}: {folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(f"model {name!r}: {folder / 'config.json'} has no model_type, so its kind is not known")
    return folder


def _spark() -> Path:
    """Folder of the shipped model; imported only when needed."""
    try:
        return Path(importlib.import_module("lightning_spark").folder())
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model 'spark' is not installed here ({error}); reinstall lightning-agent-sdk") from None
