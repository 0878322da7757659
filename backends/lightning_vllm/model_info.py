"""What has to be known about a model before a server for it is started."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_process.anatomy import Anatomy


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    path: str
    """Folder or hub name, as passed to vLLM."""
    template: str
    """Its chat template, or ''."""
    max_length: int
    """Context length in tokens, 0 if its config does not say."""
    token_bytes: int
    """Bytes of keys and values in float32 for each token, 0 if its config does not say."""
    tokenizer: str = ""
    """The tokenizer's fingerprint."""
    anatomy: Anatomy | None = None
    """None if the model's class cannot be instantiated from its config."""

    @property
    def parameters(self) -> int:
        """Number of parameters, 0 if unknown."""
        return self.anatomy.parameters if self.anatomy else 0
