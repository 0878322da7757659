"""Loads a causal LM with its tokenizer, and explains what is wrong when that fails."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lightning_process.smollm2 import provide
from lightning_process.source import Source, locate
from lightning_sdk.errors import ModelError

#: Timeout for the Hugging Face hub's first answer.
_HUB_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that can be served and trained."""

    model: PreTrainedModel
    """On the GPU, if there is one."""
    tokenizer: PreTrainedTokenizerBase
    source: Source


def load(name: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """The model of this name: 'spark', a folder, a .gguf file or a hub name. ModelError if it cannot be used."""
    source = locate(name)
    provide(source)
    if source.gguf and importlib.util.find_spec("gguf") is None:
        raise ModelError(f"model {name!r}: reading GGUF files needs the package gguf; run: pip install gguf")
    unreachable = None if source.local else _unreachable(source.path)
    # A hub name that was downloaded before needs no network.
    options: dict[str, Any] = {"local_files_only": source.local or unreachable is not None}
    if source.gguf:
        options["gguf_file"] = source.gguf
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **options)
        found: Any = AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype, output_loading_info=True, **options)
    except Exception as error:  # a broken file can raise anything, from a KeyError to a SafetensorError
        raise ModelError(_reason(source, unreachable or error)) from error
    model, report = found
    _check(name, report, tokenizer)
    return LoadedModel(model.to(_device()), tokenizer, source)


def _unreachable(name: str) -> Exception | None:
    """Why the hub does not provide this model. Asked once, since `from_pretrained` would retry for a minute."""
    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except Exception as error:  # of the network, of the hub, or of the name
        return error
    return None


def _check(name: str, report: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    lacking = sorted(report.get("missing_keys", ())) + sorted(str(each) for each in report.get("mismatched_keys", ()))
    if lacking:
        raise ModelError(
            f"model {name!r}: {len(lacking)} tensors are missing from its weights or have another shape, "
            f"such as {lacking[0]}"
        )
    if not tokenizer.chat_template:
        raise ModelError(
            f"model {name!r} has no chat template, so messages cannot be turned into tokens: use its chat or instruct "
            "variant, or put a chat_template.jinja into its folder"
        )


def _reason(source: Source, error: Exception) -> str:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    if source.local:
        return f"model {source.name!r} cannot be loaded: {type(error).__name__}: {first}"
    return (
        f"model {source.name!r} is not a folder here, and the Hugging Face hub does not provide it: "
        f"{type(error).__name__}: {first}; give a folder in Hugging Face format, or 'spark', which needs no network"
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
