"""A model's card: what has to be known of a model before a server of it is started."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_process.anatomy import Anatomy


@dataclass(frozen=True, slots=True)
class ModelInfo:
    path: str
    """Folder or hub name, as vLLM is to be told."""
    template: str
    """Its chat template, '' if it has none."""
    max_length: int
    """Tokens that it attends to, 0 if its config does not say."""
    token_bytes: int
    """Of keys and values in float32, for each token; 0 if its config does not say."""
    tokenizer: str = ""
    """The tokenizer's fingerprint."""
    anatomy: Anatomy | None = None
    """None of a model whose class cannot be made of its config alone."""

    @property
    def parameters(self) -> int:
        """0 if it is not known."""
        return self.anatomy.parameters if self.anatomy else 0
