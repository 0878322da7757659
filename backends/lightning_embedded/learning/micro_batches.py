"""Micro-batches: the rows of a batch in pieces that fit the token budget, as a model can compute them.

Two layouts with the same gradient: `share_prefixes` computes common prefixes once (see `token_trie.py`); `pad_rows`
pads one row per trajectory and works for every model. Nothing unnecessary is computed: inputs end before a row's last
sampled token, and logits exist only where a sampled token is predicted, once per distinct prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_embedded.constraints.constraint import Constraints, forbidden
from lightning_embedded.learning.token_trie import Builder, Trie, order
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
    row: Tensor
    """[M] int64 index of its row among those that were laid out."""
    valued: Tensor
    """[M] bool: whether its row has `returns` and `values`; where not, they are 0."""
    returns: Tensor
    values: Tensor


class Masks(NamedTuple):
    """The token masks of constrained rows, at a micro-batch's `predictors`."""

    bits: Tensor
    """[K, width] int32, the distinct masks as `Constraint.fill` writes them; the first allows every id."""
    which: Tensor
    """[U] int64 index of each predictor's mask."""

    def forbidden(self, vocabulary: int) -> Tensor:
        """[U, vocabulary] bool."""
        return forbidden(self.bits, vocabulary).index_select(0, self.which)


class _Predictions(NamedTuple):
    """The fields of a micro-batch that do not depend on its layout."""

    predictors: Tensor
    temperatures: Tensor
    targets: Targets
    masks: Masks | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The input of one forward pass."""

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
    """[U] the temperatures that their logits are divided by."""
    targets: Targets
    masks: Masks | None = None
    """None if no row was constrained."""


def check(rows: Sequence[Row], vocabulary: int) -> None:
    """Raise LightningError for a row that cannot be trained on."""
    for row in rows:
        size = len(row.tokens)
        arrays = (row.weights, row.advantages, row.logprobs, row.returns, row.values)
        lengths = {len(each) for each in arrays if each is not None}
        if lengths != {size}:
            raise LightningError(f"row of rollout {row.rollout!r}: {size} tokens but arrays of {sorted(lengths)}")
        if size and row.weights[0] != 0:
            raise LightningError(f"row of rollout {row.rollout!r}: its first token has a weight but no context")
        if size and not 0 <= int(row.tokens.min()) <= int(row.tokens.max()) < vocabulary:
            raise LightningError(f"row of rollout {row.rollout!r}: a token id is outside 0 to {vocabulary - 1}")
        if not row.temperature > 0:
            raise LightningError(f"row of rollout {row.rollout!r}: temperature is {row.temperature}, must be above 0")
        if (row.returns is None) != (row.values is None):
            raise LightningError(f"row of rollout {row.rollout!r}: it needs both returns and values, or neither")
        if any(not 0 < each.start <= each.end <= size for each in row.constraints):
            raise LightningError(f"row of rollout {row.rollout!r}: a constraint lies outside its {size} tokens")


def trainable(rows: Sequence[Row], skip_zero_advantage: bool) -> list[Row]:
    """The rows that can change the gradient: those with a weight and, if `skip_zero_advantage`, also an advantage
    somewhere in their sequence.

    Where the loss is a multiple of the advantages, a sequence of zero advantages has a gradient of exactly 0. A row of
    zeros in a sequence that has advantages still counts for the sequence's ratio.
    """
    weighted = [row for row in rows if row.weights.any()]
    if not skip_zero_advantage:
        return weighted
    telling = {sequence(row) for row in weighted if row.returns is not None or row.advantages[row.weights != 0].any()}
    return [row for row in weighted if sequence(row) in telling]


def sequence(row: Row) -> tuple[str, str]:
    """The key of a row's sequence, which is everything that one role sampled in one rollout."""
    return row.rollout, row.role


def share_prefixes(
    rows: Sequence[Row], budget: int, device: torch.device, constraints: Constraints | None = None
) -> Iterator[MicroBatch]:
    """Micro-batches of at most `budget` distinct positions each, or one longer row; fewer positions where many rows
    continue a long prefix."""
    inputs = [_inputs(row) for row in rows]
    builder, members = Builder(), list[int]()
    for index in order(inputs):
        if members and builder.size_with(inputs[index]) > budget:
            yield _from_trie(builder, rows, members, device, constraints)
            builder, members = Builder(), []
        builder.add(inputs[index])
        members.append(index)
    if members:
        yield _from_trie(builder, rows, members, device, constraints)


def pad_rows(
    rows: Sequence[Row], budget: int, device: torch.device, constraints: Constraints | None = None
) -> Iterator[MicroBatch]:
    """Micro-batches of at most `budget` padded tokens each, or one longer row."""
    inputs = [_inputs(row) for row in rows]
    members: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: (len(inputs[index]), inputs[index].tobytes())):
        if members and (len(members) + 1) * len(inputs[index]) > budget:
            yield _pad(rows, members, [inputs[each] for each in members], device, constraints)
            members = []
        members.append(index)
    if members:
        yield _pad(rows, members, [inputs[each] for each in members], device, constraints)


def spread(micro: MicroBatch, values: Tensor, into: Sequence[NDArray[np.float32]], rows: Sequence[Row]) -> None:
    """Write `values` [M] to their tokens' places in the rows; `into` has an array [T] for each row."""
    found, owners = values.detach().float().cpu().numpy(), micro.targets.row.cpu().numpy()
    ends = np.flatnonzero(np.diff(owners)) + 1  # the tokens of a row are adjacent
    for index, own in zip(owners[np.append(0, ends)], np.split(found, ends), strict=True):
        into[index][rows[index].weights != 0] = own


def _inputs(row: Row) -> NDArray[np.int32]:
    """The tokens needed to predict the row's last sampled token."""
    return row.tokens[: int(np.flatnonzero(row.weights)[-1])]


def _from_trie(
    builder: Builder, rows: Sequence[Row], members: list[int], device: torch.device, constraints: Constraints | None
) -> MicroBatch:
    trie = builder.build(device)
    found = _targets(rows, members, trie.paths, device, constraints)
    return MicroBatch(tokens=trie.tokens, positions=trie.positions, mask=None, trie=trie, **found._asdict())


def _pad(
    rows: Sequence[Row],
    members: list[int],
    inputs: list[NDArray[np.int32]],
    device: torch.device,
    constraints: Constraints | None,
) -> MicroBatch:
    width = max(map(len, inputs))
    tokens, mask = np.zeros((len(inputs), width), np.int64), np.zeros((len(inputs), width), np.int64)
    for index, each in enumerate(inputs):
        tokens[index, : len(each)] = each
        mask[index, : len(each)] = 1
    paths = [index * width + np.arange(len(each)) for index, each in enumerate(inputs)]
    found = _targets(rows, members, paths, device, constraints)
    positions = torch.arange(width, device=device).expand(len(inputs), -1)
    laid, padding = (torch.from_numpy(array).to(device) for array in (tokens, mask))
    return MicroBatch(tokens=laid, positions=positions, mask=padding, trie=None, **found._asdict())


def _targets(
    rows: Sequence[Row],
    members: list[int],
    paths: list[NDArray[np.int64]],
    device: torch.device,
    constraints: Constraints | None,
) -> _Predictions:
    """The distinct predicting positions with their temperatures and masks, and the tokens that they predict."""
    packed = [rows[index] for index in members]
    sampled = [np.flatnonzero(row.weights) for row in packed]
    counts = list(map(len, sampled))
    where = np.concatenate([path[at - 1] for path, at in zip(paths, sampled, strict=True)])
    heat = np.repeat([row.temperature for row in packed], counts)
    keys, bits = [where.astype(np.float64), heat], None
    if any(row.constraints for row in packed):
        which, bits = _masks(packed, sampled, constraints)
        keys.append(which.astype(np.float64))
    pairs, place = np.unique(np.stack(keys), axis=1, return_inverse=True)

    def tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(array).to(device, dtype)

    def gather(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        arrays = (getattr(row, name) for row in packed)
        parts = [np.zeros(len(at)) if array is None else array[at] for array, at in zip(arrays, sampled, strict=True)]
        return tensor(np.concatenate(parts), dtype)

    targets = Targets(
        tokens=gather("tokens", torch.int64),
        weights=gather("weights"),
        advantages=gather("advantages"),
        sampler=gather("logprobs"),
        place=tensor(place.reshape(-1), torch.int64),
        row=tensor(np.repeat(members, counts), torch.int64),
        valued=tensor(np.repeat([row.returns is not None for row in packed], counts), torch.bool),
        returns=gather("returns"),
        values=gather("values"),
    )
    masks = None if bits is None else Masks(torch.from_numpy(bits).to(device), tensor(pairs[2], torch.int64))
    return _Predictions(tensor(pairs[0], torch.int64), tensor(pairs[1], torch.float32), targets, masks)


def _masks(
    packed: Sequence[Row], sampled: Sequence[NDArray[np.int64]], constraints: Constraints | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The index of the mask that each sampled token was drawn under, and the masks; the first is that of free text."""
    if constraints is None:
        raise LightningError("rows were sampled under constraints, but this learner was created without `constraints`")
    free = np.full(constraints.width, -1, np.int32)
    known = {free.tobytes(): 0}
    which = []
    for row, at in zip(packed, sampled, strict=True):
        own = np.zeros(len(row.tokens), np.int64)
        for each in row.constraints:
            # Stop at the last token that counts: a grammar costs time for every id.
            end = min(each.end, int(at[-1]) + 1) if len(at) else each.start
            ids = row.tokens[each.start : end].tolist()
            for place, bits in enumerate(constraints.masks(each.constraint, ids), each.start):
                own[place] = known.setdefault(bits.tobytes(), len(known))
        which.append(own[at])
    return np.concatenate(which), np.frombuffer(b"".join(known), np.int32).reshape(len(known), -1).copy()
