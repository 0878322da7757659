"""A model's anatomy: how large its parts are, and what its head does. `dissection.py` finds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    parameters: int
    layers: int
    layer: int
    """Parameters of its largest layer."""
    head: int
    """Parameters of its head, also where the embedding has them too."""
    width: int
    """Of its hidden states."""
    vocabulary: int
    plain_head: bool
    """Its logits are the product of its head with what its last layer gives, and nothing more: no bias, scale or
    cap."""
    experts: bool
    """It is a mixture of experts."""
