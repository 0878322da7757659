"""Random batches: what a trainer knows of B sequences of up to L tokens, for VERL padded, and for us token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from verl.workers.config import FSDPActorConfig

from lightning_embedded.learning.logprobs import Scores
from lightning_embedded.learning.micro_batches import MicroBatch, Targets
from lightning_embedded.learning.objective import Policy, ScoredMicroBatch, Terms
from lightning_sdk.settings import Settings

#: Float64 on both sides; VERL adds 1e-8 to some denominators.
CLOSE: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-10}


@dataclass(frozen=True)
class Padded:
    """[B, L] each, float64. Where the mask is 0 the numbers are noise."""

    logprobs: Tensor
    """With gradient."""
    old: Tensor
    sampler: Tensor
    reference: Tensor
    advantages: Tensor
    mask: Tensor

    @property
    def kept_mask(self) -> Tensor:
        return self.mask.bool()

    @property
    def ratio(self) -> Tensor:
        """The ratio of new to old probabilities, unclamped."""
        return (self.logprobs - self.old).detach().exp()


def random_batch(seed: int, sequences: int = 24, length: int = 30) -> Padded:
    """Ragged, with tokens in between that were not sampled; ratios from e^-40 to e^40; every second advantage is
    negative and some are 0."""
    draw = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(sequences, length, generator=draw, dtype=torch.float64)

    ends = torch.randint(2, length + 1, (sequences, 1), generator=draw)
    mask = (torch.arange(length) < ends) & (torch.rand(sequences, length, generator=draw) < 0.8)
    mask[:, 0] = True
    logprobs = -normal(1.5).abs()
    apart = normal(0.3) + (torch.rand(sequences, length, generator=draw) < 0.1) * normal(25.0)
    advantages = normal(1.0) * (torch.rand(sequences, length, generator=draw) < 0.9)
    return Padded(
        logprobs.clone().requires_grad_(),
        logprobs - apart,
        logprobs - apart - normal(0.5),
        logprobs + normal(1.0) + (torch.rand(sequences, length, generator=draw) < 0.1) * normal(25.0),
        advantages,
        mask.double(),
    )


def ours(settings: Settings, batch: Padded, weights: Tensor, entropy: Tensor | None = None) -> Terms:
    """Our objective of these tokens, the way that the learner asks for it; `weights` [B, L] or a number."""
    kept = batch.kept_mask
    count = int(kept.sum())
    nothing, whole = torch.zeros(count, dtype=torch.float64), torch.arange(count)
    targets = Targets(
        tokens=whole,
        weights=torch.as_tensor(weights).expand_as(batch.mask)[kept],
        advantages=batch.advantages[kept],
        sampler=batch.sampler[kept],
        place=whole,
        row=kept.nonzero()[:, 0],
        valued=kept[kept] & False,
        returns=nothing,
        values=nothing,
    )
    micro = MicroBatch(
        tokens=whole, positions=whole, mask=None, trie=None, predictors=whole, temperatures=nothing, targets=targets
    )
    piece = ScoredMicroBatch(
        micro=micro,
        sequence=targets.row,
        role=whole * 0,
        scale=1.0,
        old=batch.old[kept],
        reference=batch.reference[kept],
    )
    logprobs = batch.logprobs[kept]
    policy = Policy(settings, steps=2)
    policy.begin([piece])
    policy.before_step([piece], [logprobs.detach()])
    return policy.terms(piece, Scores(logprobs, nothing if entropy is None else entropy[kept], nothing), None)


def token_mean(batch: Padded) -> Tensor:
    """The weight of each token where the loss is the mean over all."""
    return 1 / batch.mask.sum()


def gradient(loss: Tensor, *at: Tensor) -> list[Tensor]:
    """The gradient of a loss at these tensors; 0 where it does not depend on one."""
    found = torch.autograd.grad(loss, at, allow_unused=True)
    return [torch.zeros_like(each) if grad is None else grad for grad, each in zip(found, at, strict=True)]


def assert_same(ours: Tensor, theirs: Tensor, *at: Tensor) -> None:
    """The same value, and the same gradient at these tensors, which is not zero everywhere."""
    torch.testing.assert_close(ours, theirs, **CLOSE)
    for own, other in zip(gradient(ours, *at), gradient(theirs, *at), strict=True):
        torch.testing.assert_close(own, other, **CLOSE)
        assert bool(other.any())


def actor(**options: Any) -> FSDPActorConfig:
    """VERL's configuration of an actor."""
    return FSDPActorConfig(rollout_n=1, ppo_micro_batch_size_per_gpu=1, **options)
