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
    """Parameters of its head, even if they are tied to the embedding."""
    width: int
    """Size of its hidden states."""
    vocabulary: int
    plain_head: bool
    """Whether its logits are just its head applied to the output of its last layer, without bias, scale or cap."""
    experts: bool
    """Whether it is a mixture of experts."""
