"""Means over tokens, of all and of each role."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_hub.backend import Row

#: Metrics that are also reported for each role.
_BY_ROLE = ("entropy", "kl_sampler", "clip_fraction", "kl_reference")


class TokenMeans:
    """Collects numbers of tokens by metric and role. `roles`: the roles' names, by index."""

    def __init__(self, roles: list[str]) -> None:
        self._roles = roles
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, roles: Tensor) -> None:
        """Add `values` [M] of tokens with the role indices `roles` [M] int64."""
        if name not in self._sums:
            self._sums[name], self._counts[name] = (torch.zeros(len(self._roles), dtype=torch.float64) for _ in "ab")
        values, roles = values.detach().double().cpu(), roles.cpu()
        self._sums[name].index_add_(0, roles, values)
        self._counts[name].index_add_(0, roles, torch.ones_like(values))

    def means(self) -> dict[str, float]:
        """NAME over all tokens, and NAME/ROLE over the tokens of one role for the metrics that are reported by role."""
        means: dict[str, float] = {}
        for name, sums in self._sums.items():
            counts = self._counts[name]
            means[name] = float(sums.sum() / counts.sum().clamp(min=1))
            if name in _BY_ROLE:
                means |= {
                    f"{name}/{role or 'none'}": float(sums[index] / counts[index])
                    for index, role in enumerate(self._roles)
                    if counts[index]
                }
        return means


def counts(rows: Sequence[Row], trained: Sequence[Row]) -> dict[str, float]:
    """The number of rows and sampled tokens, in the whole batch and in the rows that were trained on."""

    def count_tokens(some: Sequence[Row]) -> float:
        return float(sum(int((row.weights != 0).sum()) for row in some))

    found = {"rows": float(len(rows)), "trained_rows": float(len(trained))}
    return found | {"tokens": count_tokens(rows), "trained_tokens": count_tokens(trained)}
