"""Reads a model's info from its config and tokenizer. Runs in the backend's process, which has transformers."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoTokenizer

from lightning_process.dissection import dissect
from lightning_process.fingerprint import fingerprint
from lightning_process.source import Source
from lightning_sdk.errors import ModelError
from lightning_vllm.model_info import ModelInfo


def read_model_info(source: Source) -> ModelInfo:
    """ModelError if the config or the tokenizer cannot be read."""
    try:
        whole = AutoConfig.from_pretrained(source.path, local_files_only=source.local)
        config = whole.get_text_config()
        tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=source.local)
    except Exception as error:  # a broken file can raise anything
        raise ModelError(
            f"model {source.name!r} cannot be read: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    template = tokenizer.chat_template or ""
    if isinstance(template, dict):
        template = "\n".join(template.values())
    length = int(getattr(config, "max_position_embeddings", 0) or 0)
    return ModelInfo(
        path=source.path,
        template=template,
        max_length=length,
        token_bytes=_token_bytes(config),
        tokenizer=fingerprint(tokenizer),
        anatomy=dissect(whole),
    )


def _token_bytes(config: Any) -> int:
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    if not heads:
        return 0
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * size * 4)
