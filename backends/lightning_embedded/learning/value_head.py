"""PPO's value head: estimates the future reward from the hidden state that predicts a token."""

from __future__ import annotations

import torch
from torch import Tensor


class ValueHead(torch.nn.Linear):
    """Hidden states [..., width] -> values [...], in float32. Predicts 0 until it is trained."""

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__(width, 1, device=device, dtype=torch.float32)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.float())[..., 0]


def value_loss(values: Tensor, returns: Tensor, old: Tensor, clip: float) -> Tensor:
    """[M] half the squared error, the larger of that of the estimate and of the estimate clipped around the old one.

    PPO's as in OpenAI's baselines: 1/2 max((v - R)^2, (clip(v, old - clip, old + clip) - R)^2); with clip 0 just
    1/2 (v - R)^2. All tensors [M]; `old` is the estimate from when the advantages were computed.
    """
    error = (values - returns).square()
    if clip:
        near = torch.minimum(torch.maximum(values, old - clip), old + clip)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * error


def explained_variance(values: Tensor, returns: Tensor) -> float | None:
    """1 - Var(returns - values) / Var(returns), both [M]; None if the returns do not vary."""
    spread = float(returns.double().var(correction=0)) if len(returns) else 0.0
    return 1 - float((returns - values).double().var(correction=0)) / spread if spread > 0 else None
