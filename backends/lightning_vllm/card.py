"""A model's card: what has to be known of a model before a server of it is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    path: str
    """Folder or hub name, as vLLM is to be told."""
    template: str
    """Its chat template, '' if it has none."""
    max_length: int
    """Tokens that it attends to, 0 if its config does not say."""
    token_bytes: int
    """Of keys and values in float32, for each token; 0 if its config does not say."""
    parameters: int
    """About so many, 0 if its config does not say."""
    tokenizer: str = ""
    """The tokenizer's fingerprint."""
    plain_head: bool = True
    """Its logits are its head's product and nothing more: its config names no bias, scale or cap."""
