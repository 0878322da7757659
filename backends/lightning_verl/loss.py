"""The loss that VERL's workers compute: the functions of `lightning_losses` with the hub's weights and advantages.

VERL has its own ways to aggregate tokens. This loss is the plain sum over the batch, with weights that come with the
rows, so that all of the hub's rules of credit apply here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_losses.divergence import divergence
from lightning_losses.loss import Surrogate, cispo, ppo
from lightning_losses.ratio import importance
from lightning_sdk.settings import Settings
from lightning_verl.rows import ADVANTAGES, ROLE, ROLES, WEIGHTS

#: Metrics of tokens, each reported as a sum and a count for each role.
NAMES = ("entropy", "kl_sampler", "clip_fraction", "importance_outside", "kl_reference")


@dataclass(frozen=True, slots=True)
class LossRules:
    """What the loss needs from the settings; sent to the workers."""

    settings: Settings

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the policy before the first step may differ from the current one."""
        return self.settings.algorithm.epochs * self.settings.algorithm.mini_batches > 1


def policy_loss(rules: LossRules, model_output: Any, data: Any, dp_group: Any = None) -> tuple[Tensor, dict[str, Any]]:
    """The loss of one micro-batch and metrics of its tokens, in the form that VERL's engine expects.

    VERL averages gradients over data-parallel processes, hence the factor `dp_size`.
    """
    from verl.utils.metric import AggregationType, Metric  # noqa: PLC0415 - only in VERL's workers
    from verl.utils.tensordict_utils import get_non_tensor_data  # noqa: PLC0415
    from verl.workers.utils.padding import no_padding_2_padding  # noqa: PLC0415

    mask = data["response_mask"].to_padded_tensor(0).bool()

    def select(values: Tensor) -> Tensor:
        return values[mask]

    def field(name: str) -> Tensor:
        return select(data[name].to_padded_tensor(0))

    logprobs = select(no_padding_2_padding(model_output["log_probs"], data)).float()
    entropy = model_output.get("entropy")
    entropies = None if entropy is None else select(no_padding_2_padding(entropy, data)).float()
    reference = field("ref_log_prob") if "ref_log_prob" in data.keys() else None  # noqa: SIM118 - a TensorDict
    sampler = field("rollout_log_probs")
    old = field("old_log_probs") if rules.needs_old_logprobs else logprobs.detach()
    per_token, notes = token_losses(rules, logprobs, old, sampler, field(ADVANTAGES), entropies, reference)
    loss = (field(WEIGHTS) * per_token).sum() * data["dp_size"]
    role = field(ROLE)
    metrics: dict[str, Any] = {}
    for index in range(int(get_non_tensor_data(data, ROLES, 1))):
        chosen = role == index
        metrics[f"{index}/count"] = Metric(AggregationType.SUM, float(chosen.sum()))
        for name in NAMES:
            total = notes[name][chosen].double().sum() if name in notes else torch.zeros(())
            metrics[f"{index}/{name}"] = Metric(AggregationType.SUM, float(total))
    return loss, metrics


def token_losses(
    rules: LossRules,
    logprobs: Tensor,
    old: Tensor,
    sampler: Tensor,
    advantages: Tensor,
    entropies: Tensor | None,
    reference: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """[M] losses of tokens before their weights, and their metrics, [M] each. All arguments [M]."""
    settings = rules.settings
    weights = importance(
        old - sampler, kind=settings.importance.kind, low=settings.importance.low, high=settings.importance.high
    )
    surrogate = _surrogate(settings, logprobs, old, advantages)
    per_token = weights.weights * surrogate.loss
    notes = {
        "kl_sampler": (sampler - old).detach(),
        "clip_fraction": surrogate.clipped.float(),
        "importance_outside": weights.outside.float(),
    }
    if entropies is not None:
        if settings.algorithm.entropy:  # a factor of 0 would still backpropagate
            per_token = per_token - settings.algorithm.entropy * entropies
        notes["entropy"] = entropies.detach()
    if reference is not None and settings.divergence.coefficient:
        estimate = divergence(logprobs, reference, settings.divergence.estimator)
        per_token = per_token + settings.divergence.coefficient * estimate
        notes["kl_reference"] = divergence(logprobs.detach(), reference, "k3")
    return per_token, notes


def _surrogate(settings: Settings, logprobs: Tensor, old: Tensor, advantages: Tensor) -> Surrogate:
    rules = settings.algorithm
    if rules.loss == "cispo":
        return cispo(logprobs, old, advantages, clip_low=rules.clip_low, clip_high=rules.clip_high)
    return ppo(logprobs, old, advantages, clip_low=rules.clip_low, clip_high=rules.clip_high, clip_dual=rules.clip_dual)
