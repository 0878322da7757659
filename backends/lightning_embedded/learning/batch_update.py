"""The update of one batch: its passes and optimizer steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_embedded.learning.logprobs import Scores
from lightning_embedded.learning.micro_batches import sequence
from lightning_embedded.learning.network import Network
from lightning_embedded.learning.objective import Goal, ScoredMicroBatch
from lightning_embedded.learning.value_head import explained_variance
from lightning_hub.backend import Row
from lightning_losses.divergence import divergence
from lightning_losses.mini_batches import MiniBatch
from lightning_losses.token_means import TokenMeans
from lightning_sdk.settings import Settings

log = logging.getLogger(__name__)


class BatchUpdate:
    """Trains on one batch for one goal. Use each instance once."""

    def __init__(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        goal: Goal,
        mini_batches: Sequence[MiniBatch],
        sequences: dict[tuple[str, str], int],
    ) -> None:
        """`sequences`: each sequence's index, as in the goal."""
        self._network, self._optimizer, self._settings, self._goal = network, optimizer, settings, goal
        roles = sorted({role for _, role in sequences})
        self._means = TokenMeans(roles)
        self._places = {role: index for index, role in enumerate(roles)}
        self._sequences = sequences
        self._minis = [self._pieces(mini_batch) for mini_batch in mini_batches]
        self._loss = self._largest = 0.0

    def train(self) -> dict[str, float]:
        """Take all optimizer steps and return the metrics."""
        entropies = self._prepare()
        norms: list[tuple[float, float]] = []
        steps = 0
        for epoch in range(self._settings.algorithm.epochs):
            for mini in self._minis:
                self._look_again(mini, first=steps == 0)
                for piece in mini:
                    self._backward(piece, note=epoch == 0 and entropies is None)
                steps += 1
                norm = self._step()
                if norm is None:
                    return self._metrics(norms, steps)
                norms.append(norm)
        return self._metrics(norms, steps)

    def measure(self) -> dict[str, float]:
        """The metrics of a batch without a learning signal; no weights change."""
        looked = bool(self._minis) and self._prepare() is not None
        with torch.no_grad():
            for mini in self._minis:
                for piece in mini:
                    self._forward(piece, note=not looked)
        return self._metrics([(0.0, 0.0)], 1)

    # --- what is known before the gradient

    def _pieces(self, mini_batch: MiniBatch) -> list[ScoredMicroBatch]:
        device = self._network.model.device
        found = torch.tensor([self._sequences[sequence(row)] for row in mini_batch.rows], device=device)
        roles = torch.tensor([self._places[row.role] for row in mini_batch.rows], device=device)
        return [
            ScoredMicroBatch(
                micro=micro,
                sequence=found[micro.targets.row],
                role=roles[micro.targets.row],
                scale=mini_batch.scale,
            )
            for micro in self._network.micro_batches(mini_batch.rows)
        ]

    def _prepare(self) -> list[Tensor] | None:
        """Compute what the goal needs before the first step. Each piece's entropies, if a pass computed them."""
        pieces = [piece for mini in self._minis for piece in mini]
        entropies = None
        if self._goal.needs_reference:
            for piece in pieces:
                piece.reference = self._network.refer(piece.micro)
        if self._goal.needs_old_logprobs:
            looked = self._look(pieces)
            for piece, scores in zip(pieces, looked, strict=True):
                piece.old = scores.logprobs
            entropies = [scores.entropy for scores in looked]
        self._goal.begin(pieces)
        if entropies is not None:
            for piece, entropy in zip(pieces, entropies, strict=True):
                assert piece.old is not None
                self._note(piece, piece.old, entropy)
        return entropies

    def _look(self, pieces: Sequence[ScoredMicroBatch]) -> list[Scores]:
        with torch.no_grad():
            looked = (self._network.scorer.score(piece.micro) for piece in pieces)
            return [scores._replace(hidden=scores.hidden[:0]) for scores in looked]

    def _look_again(self, mini: list[ScoredMicroBatch], first: bool) -> None:
        if not self._goal.needs_logprobs_each_step:
            return
        olds = [piece.old for piece in mini if piece.old is not None]
        self._goal.before_step(mini, olds if first else [scores.logprobs for scores in self._look(mini)])

    # --- the gradient

    def _backward(self, piece: ScoredMicroBatch, note: bool) -> None:
        loss = self._forward(piece, note)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    def _forward(self, piece: ScoredMicroBatch, note: bool) -> Tensor:
        """The piece's loss, which is also added to the metrics."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._goal.head_only):
            scores = self._network.scorer.score(piece.micro, entropy_gradient=self._goal.entropy_gradient)
        if note:
            self._note(piece, scores.logprobs.detach(), scores.entropy)
        valued = self._network.head is not None and bool(piece.micro.targets.valued.any())
        terms = self._goal.terms(piece, scores, self._network.values(piece.micro, scores) if valued else None)
        self._loss += float(terms.loss.detach())
        self._means.add("clip_fraction", terms.clipped, piece.role)
        if terms.value_loss is not None:
            kept = piece.micro.targets.valued
            self._means.add("value_loss", terms.value_loss[kept], piece.role[kept])
        return terms.loss

    def _step(self) -> tuple[float, float] | None:
        """Take one step. Norms of the model's and the head's gradient before clipping; None, without a step, if one is
        not finite."""
        head = [] if self._network.head is None else list(self._network.head.parameters())
        clip = torch.nn.utils.clip_grad_norm_
        most = self._settings.optimizer.max_norm
        norms = float(clip(self._network.parameters, most)), float(clip(head, most))
        finite = all(norm - norm == 0 for norm in norms)
        if finite:
            self._optimizer.step()
            if self._network.adapters is not None:
                self._network.adapters.merge()
        else:
            log.warning("gradient norm %s: this step is skipped and the weights are left unchanged", max(norms))
        self._optimizer.zero_grad(set_to_none=True)
        return norms if finite else None

    # --- metrics

    def _note(self, piece: ScoredMicroBatch, logprobs: Tensor, entropy: Tensor) -> None:
        """Add the metrics that are measured before the first step."""
        difference = piece.micro.targets.sampler - logprobs
        self._largest = max(self._largest, float(difference.abs().max()))
        notes = {"entropy": entropy, "kl_sampler": difference} | self._goal.notes(piece, logprobs)
        if piece.reference is not None:
            notes["kl_reference"] = divergence(logprobs, piece.reference, self._settings.divergence.estimator)
        for name, values in notes.items():
            self._means.add(name, values, piece.role)

    def _metrics(self, norms: list[tuple[float, float]], steps: int) -> dict[str, float]:
        """Metrics over `steps` steps, of which those with norms were taken."""
        pieces = [piece for mini in self._minis for piece in mini]
        nothing = {"entropy": 0.0, "kl_sampler": 0.0, "clip_fraction": 0.0}
        metrics = nothing | self._means.means() | self._goal.metrics()
        metrics |= {
            "loss": self._loss / steps,
            "grad_norm": sum(norm for norm, _ in norms) / max(1, len(norms)),
            "kl_sampler_max": self._largest,
            "skipped": float(len(norms) < steps),
            "positions": float(sum(piece.micro.tokens.numel() for piece in pieces)),
            "optimizer_steps": float(len(norms)),
        }
        if self._network.head is not None:
            metrics["value_grad_norm"] = sum(norm for _, norm in norms) / max(1, len(norms))
            metrics |= _value_metrics(pieces)
        return metrics


def _value_metrics(pieces: Sequence[ScoredMicroBatch]) -> dict[str, float]:
    targets = [piece.micro.targets for piece in pieces]
    if not targets:
        return {}
    values, returns = (
        torch.cat([each._asdict()[name][each.valued] for each in targets]) for name in ("values", "returns")
    )
    found = explained_variance(values, returns)
    return {} if found is None else {"value_explained_variance": found}


def indices(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
    """The index of each sequence."""
    return {key: index for index, key in enumerate(dict.fromkeys(map(sequence, rows)))}
