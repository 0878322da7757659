"""The sampler: one vectorised draw for all rows, each with its own temperature, top-p and random number.

The log-probability of a token is that of the distribution it was drawn from: constraint, penalties, temperature and
top-p applied. For greedy rows (temperature 0) it is the log-softmax of the logits that constraint and penalties leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_embedded.constraints.constraint import Constraint, forbidden
from lightning_embedded.engine.sequence import Sequence as Sampled

#: Ids whose probabilities are summed together when the vocabulary is too large to be summed id by id.
_BLOCK = 64


class Draw(NamedTuple):
    """One token for each of n rows."""

    ids: Tensor
    """[n] int64."""
    logprobs: Tensor
    """[n] float32."""
    probabilities: Tensor
    """[n, vocabulary] that were drawn from."""

    def top(self, row: int, count: int) -> list[tuple[int, float]]:
        """The likeliest ids of a row with their log-probabilities."""
        values, ids = self.probabilities[row].topk(count)
        return list(zip(ids.tolist(), values.log().tolist(), strict=True))


class Knobs:
    """How each of n rows is drawn, prepared once for as long as the rows stay the same."""

    def __init__(
        self,
        temperatures: list[float],
        top_ps: list[float],
        constraints: Sequence[Constraint | None] = (),
        penalised: Sequence[tuple[int, Sampled]] = (),
    ) -> None:
        """`penalised`: rows whose penalties look at what was said."""
        self.penalised = penalised
        greedy = [value == 0 for value in temperatures]
        self.greedy = torch.tensor(greedy) if any(greedy) else None
        self.all_greedy = all(greedy)
        plain = all(value in (0.0, 1.0) for value in temperatures)
        self.scale = None if plain else torch.tensor([1.0 / (value or 1.0) for value in temperatures])[:, None]
        nucleus = [row for row, p in enumerate(top_ps) if p < 1.0 and temperatures[row] > 0]
        self.rows = torch.tensor(nucleus) if nucleus else None
        self.top_p = torch.tensor([top_ps[row] for row in nucleus], dtype=torch.float64)[:, None]
        self.constraints = [each for each in constraints if each is not None]
        self.constrained = torch.tensor([row for row, each in enumerate(constraints) if each is not None])


def sample(logits: Tensor, knobs: Knobs, uniforms: list[float]) -> Draw:
    """One id for each row of `logits` [n, vocabulary]: where the cumulative distribution passes `uniforms` [n]."""
    logits = logits.float()
    if knobs.constraints:
        logits = _apply_masks(logits, knobs)
    if knobs.penalised:
        logits = logits.clone()
        for row, sequence in knobs.penalised:
            _penalise(logits[row], sequence)
    if knobs.scale is not None:
        logits = logits * knobs.scale.to(logits.device)
    probabilities = torch.softmax(logits, -1)
    if knobs.rows is not None:
        rows = knobs.rows.to(logits.device)
        probabilities[rows] = _nucleus(probabilities[rows], knobs.top_p.to(logits.device))
    if knobs.all_greedy:
        ids = logits.argmax(-1)
    else:
        ids = _invert(probabilities, torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None])
        if knobs.greedy is not None:
            ids = torch.where(knobs.greedy.to(ids.device), logits.argmax(-1), ids)
    return Draw(ids, probabilities.gather(1, ids[:, None])[:, 0].log(), probabilities)


def _apply_masks(logits: Tensor, knobs: Knobs) -> Tensor:
    vocabulary = logits.shape[1]
    bits = np.zeros((len(knobs.constraints), -(-vocabulary // 32)), np.int32)
    for line, constraint in zip(bits, knobs.constraints, strict=True):
        constraint.fill(line)
    rows = knobs.constrained.to(logits.device)
    hidden = forbidden(torch.from_numpy(bits).to(logits.device), vocabulary)
    return logits.index_copy(0, rows, logits[rows].masked_fill(hidden, -torch.inf))


def _penalise(logits: Tensor, sequence: Sampled) -> None:
    """Change [vocabulary] in place, as OpenAI (presence, frequency) and CTRL (arXiv:1909.05858, section 4.1) do."""
    params = sequence.params
    if params.repetition != 1:
        seen = torch.tensor(sorted({*sequence.prompt, *sequence.token_ids}), device=logits.device)
        values = logits[seen]
        logits[seen] = torch.where(values > 0, values / params.repetition, values * params.repetition)
    if sequence.token_ids and (params.presence or params.frequency):
        counts = torch.bincount(torch.tensor(sequence.token_ids, device=logits.device), minlength=len(logits))
        logits -= params.presence * (counts > 0) + params.frequency * counts


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """[n] where the cumulative distribution passes `uniforms` [n, 1]; multinomial is ten times slower."""
    vocabulary = probabilities.shape[1]
    if vocabulary <= _BLOCK * _BLOCK:
        return _pass(probabilities, uniforms)[0][:, 0]
    # First which block, then which id in it: a sum over all ids takes as long as a layer of the model.
    whole = vocabulary // _BLOCK * _BLOCK
    masses = probabilities[:, :whole].view(len(probabilities), -1, _BLOCK).sum(-1)
    if whole < vocabulary:
        masses = torch.cat([masses, probabilities[:, whole:].sum(-1, keepdim=True)], 1)
    block, rest = _pass(masses, uniforms)
    ids = block * _BLOCK + torch.arange(_BLOCK, device=block.device)
    inside = probabilities.gather(1, ids.clamp(max=vocabulary - 1)).masked_fill(ids >= vocabulary, 0.0)
    return (block * _BLOCK + _pass(inside, rest)[0])[:, 0]


def _pass(masses: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 1] which of the `masses` [n, m], laid end to end, `uniforms` of their sum falls into, and how far into it.

    In double precision: the rounding of a long float32 sum would hide rare tokens.
    """
    sums = masses.cumsum(-1, dtype=torch.float64)
    at = uniforms * sums[:, -1:]
    # at can round up to the whole sum, whose place is the first one that reaches it.
    last = torch.searchsorted(sums, sums[:, -1:].contiguous())
    found = torch.minimum(torch.searchsorted(sums, at, right=True), last)
    own = masses.gather(1, found).double()
    before = sums.gather(1, found) - own
    return found, ((at - before) / own).clamp(0.0, 1.0)


def _nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """The smallest set of likeliest tokens whose mass reaches top_p, renormalised (arXiv:1904.09751, section 3.1)."""
    ordered, order = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1, dtype=torch.float64) - ordered >= top_p
    outside[:, 0] = False
    ordered = ordered.masked_fill(outside, 0.0)
    return torch.empty_like(probabilities).scatter_(-1, order, ordered / ordered.sum(-1, keepdim=True))
