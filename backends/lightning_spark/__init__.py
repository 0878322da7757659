"""spark: the language model that ships with Lightning SDK, small enough to be trained on a laptop's CPU in minutes.

Importing this package is cheap; `folder()` returns the folder of the weights. For how they were made, see `python -m
lightning_spark.pretrain --help` and `weights/README.md`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """The folder of the shipped weights, in Hugging Face format: config, safetensors, tokenizer, chat template."""
    return Path(__file__).resolve().parent / "weights"
