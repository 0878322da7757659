"""Ratios over whole sequences, and importance weights between the sampler and the trainer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.loss import LARGEST


class ImportanceWeights(NamedTuple):
    """Importance weights; both without gradient."""

    weights: Tensor
    """[M]"""
    outside: Tensor
    """[M] bool: truncated ('truncate') or masked ('mask')."""


def sequence_sum(values: Tensor, sequence: Tensor) -> Tensor:
    """[M] for each entry, the sum of `values` [M] over the entries with the same index in `sequence` [M] int64.

    Summed in float64, so that the float32 result depends on neither the order of tokens nor the number of rows.
    """
    return _sums(values, sequence)[sequence].to(values.dtype)


def sequence_mean(values: Tensor, sequence: Tensor) -> Tensor:
    """[M] for each entry, the mean of `values` over the same entries."""
    counts = _sums(torch.ones_like(values), sequence)
    return (_sums(values, sequence) / counts.clamp(min=1))[sequence].to(values.dtype)


def importance(log_ratio: Tensor, *, kind: str, low: float, high: float) -> ImportanceWeights:
    """Weights rho = exp(log_ratio), bounded.

    `log_ratio` [M] is the trainer's log-probability before the batch's first step minus the sampler's: of the token, or
    summed over its sequence (`sequence_sum`). 'truncate': min(rho, high) (IMPALA, arXiv:1802.01561, eq. 1; between
    engine and trainer: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025).
    'mask': rho within [low, high], 0 outside (IcePop, arXiv:2510.18855). 'off': 1.
    """
    log_ratio = log_ratio.detach()
    if kind == "off":
        return ImportanceWeights(torch.ones_like(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool))
    ratio = log_ratio.clamp(-LARGEST, LARGEST).exp()
    if kind == "truncate":
        return ImportanceWeights(ratio.clamp(max=high), ratio > high)
    kept = (ratio >= low) & (ratio <= high)
    # NaN is not masked, so that the step is skipped with a warning.
    outside = (ratio < low) | (ratio > high)
    return ImportanceWeights(torch.where(kept | ratio.isnan(), ratio, torch.zeros_like(ratio)), outside)


def _sums(values: Tensor, sequence: Tensor) -> Tensor:
    """[S] float64, the sum of each sequence."""
    size = int(sequence.max()) + 1 if len(sequence) else 0
    return torch.zeros(size, dtype=torch.float64, device=values.device).index_add(0, sequence, values.double())
