"""spark: the language model that ships with Lightning SDK, small enough to learn on a laptop's CPU within minutes.

Importing this package costs nothing; `folder()` names the weights. How they were made: `python -m
lightning_spark.pretrain --help` and `weights/README.md`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """The folder of the shipped weights, in Hugging Face format: config, safetensors, tokenizer, chat template."""
    return Path(__file__).resolve().parent / "weights"
