"""Objectives: what a batch's tokens contribute to the gradient, for policy optimization, SFT and DPO.

Quantities of a whole sequence or pair are computed for the whole mini-batch by a pass without gradient, before the pass
with gradient. The result therefore depends neither on how rows are cut into micro-batches nor on how many rows a
sequence has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_embedded.learning.logprobs import Scores
from lightning_embedded.learning.micro_batches import MicroBatch
from lightning_embedded.learning.value_head import value_loss
from lightning_losses.divergence import divergence
from lightning_losses.loss import Surrogate, cispo, gspo, ppo, sft
from lightning_losses.preference import dpo, dpo_slope
from lightning_losses.ratio import ImportanceWeights, importance, sequence_mean, sequence_sum
from lightning_sdk.settings import Settings


@dataclass(slots=True, kw_only=True)
class ScoredMicroBatch:
    """A micro-batch, and what is known about its M tokens before the gradient is computed."""

    micro: MicroBatch
    sequence: Tensor
    """[M] int64 index of the token's sequence in the whole batch."""
    role: Tensor
    """[M] int64 index of its role."""
    scale: float
    """Factor for the weights, from the mini-batch."""
    old: Tensor | None = None
    """[M] log-probabilities before the batch's first step, if a separate pass computed them."""
    reference: Tensor | None = None
    """[M] log-probabilities under the reference model."""
    gap: Tensor | None = None
    """[M] trainer's minus sampler's log-probability of the whole sequence; None to use each token's own."""
    drift: Tensor | None = None
    """[M] mean change of the log-probability over the sequence since the batch's first step; None before it."""
    slope: Tensor | None = None
    """[M] DPO: derivative of the loss with respect to the token's log-probability."""
    share: Tensor | None = None
    """[M] DPO: the loss of its pairs, divided among their tokens."""

    @property
    def weights(self) -> Tensor:
        return self.micro.targets.weights * self.scale


class Terms(NamedTuple):
    """The loss of one micro-batch."""

    loss: Tensor
    """Scalar, with gradient."""
    clipped: Tensor
    """[M] bool."""
    value_loss: Tensor | None = None
    """[M] loss of the value head, before its coefficient; 0 where not `valued`."""


class Goal(Protocol):
    """One objective over one batch."""

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the log-probabilities of all tokens must be known before the first optimizer step."""
        ...

    @property
    def needs_logprobs_each_step(self) -> bool:
        """Whether the log-probabilities of a mini-batch must be known before each of its steps."""
        ...

    @property
    def skips_zero_advantage(self) -> bool:
        """Whether sequences of zero advantages can be left out, because their gradient is exactly zero."""
        ...

    @property
    def entropy_gradient(self) -> bool:
        """Whether the entropy is part of the loss."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether the reference's log-probabilities are used in the loss or in metrics."""
        ...

    @property
    def head_only(self) -> bool:
        """Whether only the value head is trained."""
        ...

    def begin(self, pieces: Sequence[ScoredMicroBatch]) -> None:
        """Called before the first step with the whole batch; `old` is set if `needs_old_logprobs`."""
        ...

    def before_step(self, pieces: Sequence[ScoredMicroBatch], current: Sequence[Tensor]) -> None:
        """Called with one mini-batch before its step, if `needs_logprobs_each_step`; `current` holds each piece's
        log-probabilities at this moment."""
        ...

    def terms(self, piece: ScoredMicroBatch, scores: Scores, values: Tensor | None) -> Terms:
        """The loss of one micro-batch; `values` [M] are the value head's."""
        ...

    def notes(self, piece: ScoredMicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        """Metrics of each token, [M], from the log-probabilities before the first step."""
        ...

    def metrics(self) -> dict[str, float]:
        """Metrics of the batch."""
        ...


@dataclass(slots=True)
class Policy:
    """The policy loss that `algorithm.loss` names, with divergence, entropy and value terms."""

    settings: Settings
    steps: int
    """Number of optimizer steps on this batch."""
    head_only: bool = False
    """Only the value head is trained."""

    @property
    def needs_old_logprobs(self) -> bool:
        return self.steps > 1 or self._by_sequence

    @property
    def needs_logprobs_each_step(self) -> bool:
        return self.steps > 1 and self.settings.algorithm.loss == "gspo"

    @property
    def skips_zero_advantage(self) -> bool:
        return not self.entropy_gradient and not self._pull

    @property
    def entropy_gradient(self) -> bool:
        return self.settings.algorithm.entropy > 0 and not self.head_only

    @property
    def needs_reference(self) -> bool:
        return self.settings.divergence.coefficient > 0

    @property
    def _by_sequence(self) -> bool:
        return self.settings.importance.kind != "off" and self.settings.importance.level == "sequence"

    @property
    def _pull(self) -> float:
        """Coefficient of the divergence in the loss."""
        return self.settings.divergence.coefficient if self.settings.divergence.place == "loss" else 0.0

    def begin(self, pieces: Sequence[ScoredMicroBatch]) -> None:
        if not self._by_sequence:
            return
        gaps = [each.old - each.micro.targets.sampler for each in pieces if each.old is not None]
        for piece, gap in zip(pieces, _by_sequence(sequence_sum, pieces, gaps), strict=True):
            piece.gap = gap

    def before_step(self, pieces: Sequence[ScoredMicroBatch], current: Sequence[Tensor]) -> None:
        moved = [now - each.old for each, now in zip(pieces, current, strict=True) if each.old is not None]
        for piece, drift in zip(pieces, _by_sequence(sequence_mean, pieces, moved), strict=True):
            piece.drift = drift

    def _importance(self, piece: ScoredMicroBatch, logprobs: Tensor) -> ImportanceWeights:
        old = logprobs.detach() if piece.old is None else piece.old
        rules = self.settings.importance
        gap = old - piece.micro.targets.sampler if piece.gap is None else piece.gap
        return importance(gap, kind=rules.kind, low=rules.low, high=rules.high)

    def terms(self, piece: ScoredMicroBatch, scores: Scores, values: Tensor | None) -> Terms:
        weights = self._importance(piece, scores.logprobs).weights
        surrogate = self._surrogate(piece, scores.logprobs)
        per_token = torch.zeros_like(surrogate.loss) if self.head_only else weights * surrogate.loss
        if self.entropy_gradient:
            per_token = per_token - self.settings.algorithm.entropy * scores.entropy
        if self._pull and piece.reference is not None and not self.head_only:
            estimate = divergence(scores.logprobs, piece.reference, self.settings.divergence.estimator)
            per_token = per_token + self._pull * estimate
        errors = self._errors(piece, values)
        if errors is not None:
            per_token = per_token + self.settings.value.coefficient * errors
        return Terms((piece.weights * per_token).sum(), surrogate.clipped, errors)

    def _surrogate(self, piece: ScoredMicroBatch, logprobs: Tensor) -> Surrogate:
        algorithm, advantages = self.settings.algorithm, piece.micro.targets.advantages
        low, high, dual = algorithm.clip_low, algorithm.clip_high, algorithm.clip_dual
        if algorithm.loss == "gspo":
            drift = torch.zeros_like(logprobs) if piece.drift is None else piece.drift
            return gspo(logprobs, drift, advantages, clip_low=low, clip_high=high, clip_dual=dual)
        old = logprobs.detach() if piece.old is None else piece.old
        if algorithm.loss == "cispo":
            return cispo(logprobs, old, advantages, clip_low=low, clip_high=high)
        return ppo(logprobs, old, advantages, clip_low=low, clip_high=high, clip_dual=dual)

    def _errors(self, piece: ScoredMicroBatch, values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        targets = piece.micro.targets
        errors = value_loss(values, targets.returns, targets.values, self.settings.value.clip)
        return torch.where(targets.valued, errors, 0.0)

    def notes(self, piece: ScoredMicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        kind = self.settings.importance.kind
        if kind == "off":
            return {}
        name = "truncated_fraction" if kind == "truncate" else "masked_fraction"
        return {name: self._importance(piece, logprobs).outside}

    def metrics(self) -> dict[str, float]:
        return {}


@dataclass(slots=True)
class Supervised:
    """Supervised fine-tuning: minus the weighted log-probability."""

    needs_old_logprobs = needs_logprobs_each_step = needs_reference = False
    skips_zero_advantage = entropy_gradient = head_only = False

    def begin(self, pieces: Sequence[ScoredMicroBatch]) -> None:
        pass

    def before_step(self, pieces: Sequence[ScoredMicroBatch], current: Sequence[Tensor]) -> None:
        pass

    def terms(self, piece: ScoredMicroBatch, scores: Scores, values: Tensor | None) -> Terms:
        return Terms((piece.weights * sft(scores.logprobs)).sum(), torch.zeros_like(piece.weights, dtype=torch.bool))

    def notes(self, piece: ScoredMicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        return {}

    def metrics(self) -> dict[str, float]:
        return {}


@dataclass(slots=True)
class Preference:
    """DPO over pairs of sequences. A pair is weighted with the mean weight of its tokens.

    The gradient takes two passes: the first finds the slope of each pair's loss, the second adds slope times the
    gradient of each token's log-probability. The tokens of a pair may therefore lie in different micro-batches.
    """

    beta: float
    pairs: Tensor
    """[P, 2] indices of the sequences: chosen, rejected."""
    needs_old_logprobs = needs_logprobs_each_step = needs_reference = True
    skips_zero_advantage = entropy_gradient = head_only = False
    _metrics: dict[str, float] = field(default_factory=dict)

    def begin(self, pieces: Sequence[ScoredMicroBatch]) -> None:
        margins, _ = self._margins(pieces, [each.old for each in pieces if each.old is not None])
        self._metrics = {
            "dpo_accuracy": float((margins > 0).double().mean()),
            "dpo_margin": float((self.beta * margins).mean()),
        }

    def before_step(self, pieces: Sequence[ScoredMicroBatch], current: Sequence[Tensor]) -> None:
        margins, pairs = self._margins(pieces, current)
        sequence = torch.cat([each.sequence for each in pieces])
        totals = _Totals(sequence)
        tokens = totals.of(torch.ones_like(sequence))[pairs].sum(1)
        weights = totals.of(torch.cat([each.weights for each in pieces]))[pairs].sum(1) / tokens
        slope = weights * dpo_slope(margins, self.beta)
        share = weights * dpo(margins, self.beta) / tokens
        slopes, shares = (torch.zeros(totals.size, dtype=torch.float64, device=sequence.device) for _ in "ab")
        slopes.index_add_(0, pairs.flatten(), torch.stack([slope, -slope], 1).flatten())
        shares.index_add_(0, pairs.flatten(), share.repeat_interleave(2))
        for piece in pieces:
            piece.slope, piece.share = slopes[piece.sequence].float(), shares[piece.sequence].float()

    def terms(self, piece: ScoredMicroBatch, scores: Scores, values: Tensor | None) -> Terms:
        assert piece.slope is not None and piece.share is not None
        per_token = piece.slope * (scores.logprobs - scores.logprobs.detach()) + piece.share
        return Terms(per_token.sum(), torch.zeros_like(piece.weights, dtype=torch.bool))

    def notes(self, piece: ScoredMicroBatch, logprobs: Tensor) -> dict[str, Tensor]:
        return {}

    def metrics(self) -> dict[str, float]:
        return self._metrics

    def _margins(self, pieces: Sequence[ScoredMicroBatch], current: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The [P'] margins of the pairs in these pieces, and their [P', 2] sequences."""
        sequence = torch.cat([each.sequence for each in pieces])
        totals = _Totals(sequence)
        gains = [now - each.reference for each, now in zip(pieces, current, strict=True) if each.reference is not None]
        gained = totals.of(torch.cat(gains))
        pairs = self.pairs[torch.isin(self.pairs, sequence).all(1)]
        return gained[pairs[:, 0]] - gained[pairs[:, 1]], pairs


class _Totals:
    """Sums over each sequence, in float64."""

    def __init__(self, sequence: Tensor) -> None:
        self._sequence = sequence
        self.size = int(sequence.max()) + 1

    def of(self, values: Tensor) -> Tensor:
        """[S]"""
        zeros = torch.zeros(self.size, dtype=torch.float64, device=values.device)
        return zeros.index_add(0, self._sequence, values.double())


def _by_sequence(
    reduce: Callable[[Tensor, Tensor], Tensor], pieces: Sequence[ScoredMicroBatch], values: Sequence[Tensor]
) -> list[Tensor]:
    """`ratio.sequence_*` over the tokens of several micro-batches."""
    reduced = reduce(torch.cat(list(values)), torch.cat([each.sequence for each in pieces]))
    return list(torch.split(reduced, [len(each.sequence) for each in pieces]))
