"""Each recipe of docs/algorithms.md: two steps of our learner on rollouts, and the same by VERL's functions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Row
from lightning_hub.credit.batch import build_batch
from lightning_sdk.settings import Settings
from tests.learner.gradients import gradients as stepped
from tests.learner.gradients import make_learner
from tests.verl.recipes import Recipe, recipes
from tests.verl.responses import PROMPT, Responses, responses

RECIPES = recipes()
#: Learning rates so large that the first plain step takes some ratios out of their bounds, but not all of them.
RATES = {"Dr. GRPO": 2000.0, "RLOO": 1.0, "PPO": 0.05, "GSPO": 0.02, "CISPO": 60.0}
#: The head is random, so that its estimates and their clipping matter.
HEAD = 0.5


def test_every_recipe_is_found() -> None:
    """The page has nine."""
    assert [each.name for each in RECIPES] == [
        "GRPO",
        "Dr. GRPO",
        "RLOO",
        "REINFORCE++",
        "REINFORCE++ with a baseline",
        "PPO",
        "DAPO",
        "GSPO",
        "CISPO",
    ]


@pytest.mark.parametrize("recipe", RECIPES, ids=[each.name for each in RECIPES])
def test_the_same_gradients(recipe: Recipe) -> None:
    """Those of the first step, where nothing is clipped, and of the second on the same batch, where some tokens are."""
    rate = RATES.get(recipe.name, 20.0)
    settings = recipe.of(
        optimizer__learning_rate=rate, algorithm__epochs=2, algorithm__mini_batches=1, value__warmup_steps=0
    )
    learner = make_learner(**{name.replace(".", "__"): value for name, value in changes(settings).items()})
    if learner._network.head is not None:
        torch.nn.init.normal_(learner._network.head.weight, std=HEAD)
    made = responses(3)
    rows = build_batch(made.rollouts, settings, scoring=learner).rows
    twin = Twin(recipe, learner, made, rows, rate)
    own = stepped(rows, learner=learner)
    assert len(own) == 2
    for step, mine in enumerate(own):
        other = twin.step()
        assert bool(other.any())
        assert float((mine - other).norm()) <= 1e-5 * float(other.norm()), f"step {step + 1}"
    assert 0 < twin.clipped < 0.9


def changes(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.changes().items() if name != "credit.rewards"}


class Twin:
    """The learner's model again, trained on the same sequences by VERL's functions."""

    def __init__(self, recipe: Recipe, learner: Learner, made: Responses, rows: Sequence[Row], rate: float) -> None:
        self.recipe, self.made, self.rate = recipe, made, rate
        self.model: PreTrainedModel = copy.deepcopy(learner.model)
        self.model.set_attn_implementation("eager")
        self.head = copy.deepcopy(learner._network.head)
        self.coefficient = learner.settings.value.coefficient
        order = {each.id: place for place, each in enumerate(made.rollouts)}
        width = len(PROMPT) + made.mask.shape[1]
        self.tokens = torch.zeros(len(order), width, dtype=torch.long)
        for row in rows:
            self.tokens[order[row.rollout], : len(row.tokens)] = torch.from_numpy(row.tokens).long()
        self.mask = made.mask.float()
        assert int(self.mask.sum()) == sum(int((row.weights != 0).sum()) for row in rows)
        with torch.no_grad():
            self.old, _, self.values = self.scores()
        self.reference = self.old
        self.sampler = made.sampler.float() * self.mask
        self.advantages, self.returns = self.verl_credit()
        self.clipped = 0.0

    def scores(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """[B, L] log-probabilities, entropies and the head's values of the responses."""
        output = self.model(input_ids=self.tokens, output_hidden_states=True, use_cache=False)
        predicting = slice(len(PROMPT) - 1, -1)
        logits = output.logits[:, predicting].float()
        logprobs = logprobs_from_logits(logits, self.tokens[:, len(PROMPT) :], inplace_backward=False)
        values = None if self.head is None else self.head(output.hidden_states[-1][:, predicting])
        return logprobs, entropy_from_logits(logits), values

    def verl_credit(self) -> tuple[Tensor, Tensor]:
        """[B, L] advantages and returns, as VERL's trainer asks for them."""
        algorithm, rewards = self.recipe.algorithm, self.made.rewards.float()
        if algorithm.use_kl_in_reward:
            kl = core_algos.kl_penalty(self.sampler, self.reference, algorithm.kl_penalty)
            rewards = rewards - algorithm.kl_ctrl["kl_coef"] * kl * self.mask
        estimator: Callable[..., tuple[Tensor, Tensor]] = core_algos.get_adv_estimator_fn(algorithm.adv_estimator)
        if algorithm.adv_estimator == "gae":
            return estimator(rewards, self.values, self.mask, algorithm.gamma, algorithm.lam)
        options: dict[str, Any] = {"config": algorithm}
        if algorithm.adv_estimator != "reinforce_plus_plus":
            options["index"] = self.made.index
        if algorithm.adv_estimator == "grpo":
            options["norm_adv_by_std_in_grpo"] = algorithm.norm_adv_by_std_in_grpo
        return estimator(token_level_rewards=rewards.clone(), response_mask=self.mask, **options)

    def loss(self) -> Tensor:
        """As VERL's `ppo_loss` puts its parts together, and the value head's beside."""
        config, mask = self.recipe.actor, self.mask
        logprobs, entropy, values = self.scores()
        correction, info = self.recipe.correction, {"loss_scale_factor": config.loss_scale_factor}
        config.global_batch_info.update(info)
        weights, _ = compute_rollout_correction_weights(
            self.old - self.sampler, mask, correction.rollout_is, correction.rollout_is_threshold
        )
        policy = core_algos.get_policy_loss_fn(config.policy_loss.loss_mode)
        loss: Tensor
        loss, metrics = policy(self.old, logprobs, self.advantages, mask, config.loss_agg_mode, config, weights)
        self.clipped = metrics["actor/pg_clipfrac"]
        loss = loss - config.entropy_coeff * core_algos.agg_loss(entropy, mask, config.loss_agg_mode, **info)
        if config.use_kl_loss:
            kl = core_algos.kl_penalty(logprobs, self.reference, config.kl_loss_type)
            loss = loss + config.kl_loss_coef * core_algos.agg_loss(kl, mask, config.loss_agg_mode, **info)
        if values is not None:
            error, _ = core_algos.compute_value_loss(
                values, self.returns, self.values, mask, self.recipe.cliprange_value, config.loss_agg_mode
            )
            loss = loss + self.coefficient * error
        return loss

    def step(self) -> Tensor:
        """The gradient, taken."""
        parameters = [*self.model.parameters(), *([] if self.head is None else self.head.parameters())]
        gradient = torch.autograd.grad(self.loss(), parameters)
        with torch.no_grad():
            for parameter, each in zip(parameters, gradient, strict=True):
                parameter.sub_(self.rate * each)
        return torch.cat([each.flatten() for each in gradient])
