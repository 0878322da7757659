"""The learner: weights and optimizer of one model, made better by one batch at a time."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lightning_embedded.loss import Loss, policy_loss
from lightning_embedded.packing import MicroBatch, check, trainable
from lightning_embedded.schedule import default_rate, rate_at
from lightning_embedded.scoring import Scorer, Scores
from lightning_hub.backend import Batch, Row, Update
from lightning_sdk.errors import ModelError
from lightning_sdk.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pass:
    """Sums over the tokens of one pass over a batch."""

    sums: dict[str, float] = field(default_factory=dict)
    largest: float = 0.0

    def add(self, micro: MicroBatch, scores: Scores, loss: Loss) -> None:
        difference = micro.targets.sampler - scores.logprobs.detach()
        self._sum("loss", loss.value)
        self._sum("entropy", scores.entropy)
        self._sum("clip_fraction", loss.clipped)
        self._sum("truncated_fraction", loss.truncated)
        self._sum("kl_sampler", difference)
        self._sum("kl_reference", loss.divergence)
        self.sums["trained"] = self.sums.get("trained", 0.0) + len(micro.targets.tokens)
        self.sums["positions"] = self.sums.get("positions", 0.0) + micro.tokens.numel()
        self.largest = max(self.largest, float(difference.abs().max()))

    def _sum(self, name: str, values: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().sum(dtype=torch.float64))

    def mean(self, name: str) -> float:
        return self.sums.get(name, 0.0) / max(1.0, self.sums.get("trained", 0.0))


class Learner:
    """AdamW on the policy loss of `loss.py`. Not thread-safe: one update at a time."""

    def __init__(self, model: PreTrainedModel, settings: Settings, *, share: bool = True) -> None:
        """`model` is trained in place. `share` False computes padded rows instead of common prefixes once."""
        torch.manual_seed(settings.seed)
        self.model = model
        self.settings = settings
        self.version = 0
        self.steps = 0
        self._reference = Scorer(copy.deepcopy(model).requires_grad_(False), share=share) if self._kl else None
        self._scorer = Scorer(model, share=share)
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        self.size = sum(each.numel() for each in self._parameters)
        optimizer = settings.optimizer
        self.rate = optimizer.learning_rate or default_rate(self.size)
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=self.rate,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )

    @property
    def _kl(self) -> float:
        return self.settings.divergence.coefficient

    def facts(self) -> dict[str, object]:
        """What was decided here: rate, size, precision, device, layout."""
        return {
            "learning_rate": self.rate,
            "parameters": self.size,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "shares_prefixes": self._scorer.shares,
            "threads": torch.get_num_threads(),
        }

    def update(self, batch: Batch) -> Update:
        """One batch, `algorithm.epochs` optimizer steps. LightningError for a malformed row.

        Metrics are means over the tokens that were computed, measured before the first step; loss, grad_norm and
        clip_fraction are means over the passes. `tokens` counts every sampled token of the batch, `trained_tokens`
        those of rows that can change the gradient: without a KL term a row of zero advantages is left out, unless all
        rows are such, when the batch is only measured. `tokens_per_second` counts rows whole, prompts included.
        """
        started = time.perf_counter()
        check(batch.rows, self.model.config.get_text_config().vocab_size)
        weighted = trainable(batch.rows, skip_flat=False)
        rows = trainable(weighted, skip_flat=self._kl == 0)
        micros = list(self._scorer.micro_batches(rows or weighted, self.settings.optimizer.micro_batch_tokens))
        metrics = self._train(micros) if rows else self._measure(micros)
        self.version += 1
        seconds = time.perf_counter() - started
        read = sum(len(row.tokens) for row in weighted)
        metrics |= _counts(batch.rows, rows) | {"seconds": seconds, "tokens_per_second": read / seconds}
        return Update(self.version, metrics)

    def logprobs(self, row: Row) -> list[float]:
        """Log-probability of each sampled token of a row, in order."""
        with torch.no_grad():
            (micro,) = self._scorer.micro_batches([row], len(row.tokens))
            return [float(each) for each in self._scorer.score(micro).logprobs]

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the weights; tensors and numbers only."""
        return {"version": self.version, "steps": self.steps, "optimizer": self._optimizer.state_dict()}

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue as if never interrupted. ModelError, and nothing changed, for the weights of another model."""
        own = self.model.state_dict()
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in weights.items()}:
            raise ModelError("this checkpoint is of another model than the one that is being trained")
        self.model.load_state_dict(weights)
        self._optimizer.load_state_dict(state["optimizer"])
        self.version, self.steps = int(state["version"]), int(state["steps"])

    def _train(self, micros: list[MicroBatch]) -> dict[str, float]:
        rate = self._rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        references = [self._refer(micro) for micro in micros]
        olds: list[Tensor | None] = [None] * len(micros)
        passes, norms = [], []
        for _ in range(self.settings.algorithm.epochs):
            done = _Pass()
            olds = [self._backward(*each, done) for each in zip(micros, olds, references, strict=True)]
            norm = self._step()
            passes.append(done)
            norms.append(norm)
            if norm is None:
                break
        self.steps += 1
        return _metrics(passes, norms, rate, self._reference is not None)

    def _backward(self, micro: MicroBatch, old: Tensor | None, reference: Tensor | None, done: _Pass) -> Tensor:
        """Adds the micro-batch's gradient; the log-probabilities before the batch's first step."""
        scores = self._scorer.score(micro)
        loss = self._loss(micro, scores, old, reference)
        loss.value.backward()  # type: ignore[no-untyped-call]
        done.add(micro, scores, loss)
        return scores.logprobs.detach() if old is None else old

    def _step(self) -> float | None:
        """The gradient's norm before clipping; None, and the weights as they were, if it is not finite."""
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.optimizer.max_norm))
        finite = norm - norm == 0
        if finite:
            self._optimizer.step()
        else:
            log.warning("gradient norm %s: this step is skipped and the weights are left as they were", norm)
        self._optimizer.zero_grad(set_to_none=True)
        return norm if finite else None

    def _measure(self, micros: list[MicroBatch]) -> dict[str, float]:
        """Metrics of a batch without signal; weights, rate schedule and optimizer are left alone."""
        done = _Pass()
        with torch.no_grad():
            for micro in micros:
                scores = self._scorer.score(micro)
                done.add(micro, scores, self._loss(micro, scores, None, None))
        return _metrics([done], [0.0], self._rate(), False)

    def _rate(self) -> float:
        return rate_at(self.steps, self.settings.steps, self.rate, self.settings.optimizer)

    def _refer(self, micro: MicroBatch) -> Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            return self._reference.score(micro).logprobs

    def _loss(self, micro: MicroBatch, scores: Scores, old: Tensor | None, reference: Tensor | None) -> Loss:
        algorithm, targets = self.settings.algorithm, micro.targets
        return policy_loss(
            scores.logprobs,
            targets.sampler,
            targets.advantages,
            targets.weights,
            old=old,
            reference=reference,
            clip_low=algorithm.clip_low,
            clip_high=algorithm.clip_high,
            cap=0 if self.settings.importance.kind == "off" else self.settings.importance.high,
            kl=self._kl,
        )


def _metrics(passes: list[_Pass], norms: list[float | None], rate: float, refers: bool) -> dict[str, float]:
    first, finite = passes[0], [norm for norm in norms if norm is not None]
    metrics = {name: first.mean(name) for name in ("entropy", "truncated_fraction", "kl_sampler")}
    if refers:
        metrics["kl_reference"] = first.mean("kl_reference")
    metrics |= {
        "loss": sum(each.sums.get("loss", 0.0) for each in passes) / len(passes),
        "clip_fraction": sum(each.mean("clip_fraction") for each in passes) / len(passes),
        "grad_norm": sum(finite) / max(1, len(finite)),
        "kl_sampler_max": first.largest,
        "learning_rate": rate,
        "skipped": float(len(finite) < len(norms)),
        "positions": first.sums.get("positions", 0.0),
    }
    return metrics


def _counts(rows: list[Row], trained: list[Row]) -> dict[str, float]:
    def sampled(some: list[Row]) -> float:
        return float(sum(int((row.weights != 0).sum()) for row in some))

    counts = {"rows": float(len(rows)), "trained_rows": float(len(trained))}
    return counts | {"tokens": sampled(rows), "trained_tokens": sampled(trained)}
