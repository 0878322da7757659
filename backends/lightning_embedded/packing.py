"""Micro-batches: the rows of a batch in pieces that fit the token budget, as a model can compute them.

Two layouts with the same gradient: `shared` computes common prefixes once (see `trie.py`), `plain` pads one row per
trajectory and works for every model. Only what can matter is laid out: inputs end before a row's last sampled token,
logits are computed only where a sampled token is predicted, and once per distinct prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_embedded.trie import Builder, Trie, order
from lightning_hub.backend import Row
from lightning_sdk.errors import LightningError


class Targets(NamedTuple):
    """The M sampled tokens of a micro-batch, one entry each."""

    tokens: Tensor
    """[M] int64 ids."""
    weights: Tensor
    advantages: Tensor
    sampler: Tensor
    """[M] log-probability under the sampler."""
    place: Tensor
    """[M] which of the micro-batch's `predictors` predicts it."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass computes."""

    tokens: Tensor
    """[B, L] int64."""
    positions: Tensor
    """[B, L] place of each token in its row."""
    mask: Tensor | None
    """[B, L] 1 for tokens, 0 for padding; None for the shared layout."""
    trie: Trie | None
    predictors: Tensor
    """[U] flat positions in [B * L] whose logits are needed."""
    temperatures: Tensor
    """[U] by which their logits are divided."""
    targets: Targets


def check(rows: Sequence[Row], vocabulary: int) -> None:
    """LightningError for a row that no gradient can be made of."""
    for row in rows:
        size = len(row.tokens)
        lengths = {len(row.weights), len(row.advantages), len(row.logprobs)}
        if lengths != {size}:
            raise LightningError(f"row of rollout {row.rollout!r}: {size} tokens but arrays of {sorted(lengths)}")
        if size and row.weights[0] != 0:
            raise LightningError(f"row of rollout {row.rollout!r}: its first token has a weight but no context")
        if size and not 0 <= int(row.tokens.min()) <= int(row.tokens.max()) < vocabulary:
            raise LightningError(f"row of rollout {row.rollout!r}: a token id is not below {vocabulary}")
        if not row.temperature > 0:
            raise LightningError(f"row of rollout {row.rollout!r}: temperature {row.temperature}, must be above 0")


def trainable(rows: Sequence[Row], skip_flat: bool) -> list[Row]:
    """The rows that can change the gradient: with a weight and, if `skip_flat`, with an advantage.

    Without a KL term a row whose advantages are all 0 has a loss of exactly 0, whatever the model does.
    """
    weighted = (row for row in rows if row.weights.any())
    return [row for row in weighted if not skip_flat or row.advantages[row.weights != 0].any()]


def shared(rows: Sequence[Row], budget: int, device: torch.device) -> Iterator[MicroBatch]:
    """Micro-batches of at most `budget` distinct positions each, unless one row alone has more."""
    inputs = [_inputs(row) for row in rows]
    builder, members = Builder(), list[Row]()
    for index in order(inputs):
        if members and builder.grown(inputs[index]) > budget:
            yield _from_trie(builder, members, device)
            builder, members = Builder(), []
        builder.add(inputs[index])
        members.append(rows[index])
    if members:
        yield _from_trie(builder, members, device)


def plain(rows: Sequence[Row], budget: int, device: torch.device) -> Iterator[MicroBatch]:
    """Micro-batches of at most `budget` padded tokens each, unless one row alone has more."""
    inputs = [_inputs(row) for row in rows]
    members: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: (len(inputs[index]), inputs[index].tobytes())):
        if members and (len(members) + 1) * len(inputs[index]) > budget:
            yield _padded([rows[each] for each in members], [inputs[each] for each in members], device)
            members = []
        members.append(index)
    if members:
        yield _padded([rows[each] for each in members], [inputs[each] for each in members], device)


def _inputs(row: Row) -> NDArray[np.int32]:
    """What must be read to predict the row's last sampled token."""
    return row.tokens[: int(np.flatnonzero(row.weights)[-1])]


def _from_trie(builder: Builder, rows: list[Row], device: torch.device) -> MicroBatch:
    trie = builder.build(device)
    predictors, temperatures, targets = _targets(rows, trie.paths, device)
    return MicroBatch(trie.tokens, trie.positions, None, trie, predictors, temperatures, targets)


def _padded(rows: list[Row], inputs: list[NDArray[np.int32]], device: torch.device) -> MicroBatch:
    width = max(map(len, inputs))
    tokens, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for index, each in enumerate(inputs):
        tokens[index, : len(each)] = each
        mask[index, : len(each)] = 1
    paths = [index * width + np.arange(len(each)) for index, each in enumerate(inputs)]
    predictors, temperatures, targets = _targets(rows, paths, device)
    positions = torch.arange(width, device=device).expand(len(rows), -1)
    flat = (torch.from_numpy(array).to(device) for array in (tokens, mask))
    return MicroBatch(next(flat), positions, next(flat), None, predictors, temperatures, targets)


def _targets(rows: list[Row], paths: list[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, Tensor, Targets]:
    """Predicting positions with their temperatures, each pair once, and the tokens that they predict."""
    sampled = [np.flatnonzero(row.weights) for row in rows]
    where = np.concatenate([path[at - 1] for path, at in zip(paths, sampled, strict=True)])
    heat = np.concatenate([np.full(len(at), row.temperature) for row, at in zip(rows, sampled, strict=True)])
    pairs, place = np.unique(np.stack([where.astype(np.float64), heat]), axis=1, return_inverse=True)

    def gathered(name: str, dtype: torch.dtype) -> Tensor:
        parts = [getattr(row, name)[at] for row, at in zip(rows, sampled, strict=True)]
        return torch.from_numpy(np.concatenate(parts)).to(device, dtype)

    targets = Targets(
        gathered("tokens", torch.int64),
        gathered("weights", torch.float32),
        gathered("advantages", torch.float32),
        gathered("logprobs", torch.float32),
        torch.from_numpy(place.reshape(-1).astype(np.int64)).to(device),
    )
    predictors, temperatures = (torch.from_numpy(pairs[index]).to(device) for index in (0, 1))
    return predictors.to(torch.int64), temperatures.to(torch.float32), targets
