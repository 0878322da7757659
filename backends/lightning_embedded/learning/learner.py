"""The learner: trains the weights of one model, one batch at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.learning.batch_update import BatchUpdate, indices
from lightning_embedded.learning.micro_batches import check, sequence, trainable
from lightning_embedded.learning.network import Network
from lightning_embedded.learning.objective import Goal, Policy, Preference, Supervised
from lightning_hub.backend import Batch, Objective, Row, Update
from lightning_losses.mini_batches import split_mini_batches
from lightning_losses.schedule import default_rate, rate_of_update
from lightning_losses.token_means import counts
from lightning_sdk.errors import LightningError, ModelError
from lightning_sdk.settings import Settings


class Learner:
    """AdamW on the losses of `objective.py`. Not thread-safe: one call at a time."""

    def __init__(
        self, model: PreTrainedModel, settings: Settings, *, share: bool = True, constraints: Constraints | None = None
    ) -> None:
        """`model` is trained in place; its current state is the reference.

        Without `share`, rows are padded instead of computing common prefixes once. Without `constraints`, rows that
        were sampled under constraints are refused.
        """
        torch.manual_seed(settings.seed)
        self.model = model
        self.settings = settings
        self.version = 0
        self.steps = 0
        self._network = Network(model, settings, share=share, constraints=constraints)
        self.size = sum(each.numel() for each in self._network.parameters)
        optimizer = settings.optimizer
        self.rate = optimizer.learning_rate or default_rate(self.size)
        groups: list[dict[str, Any]] = [{"params": self._network.parameters, "lr": self.rate}]
        if self._network.head is not None:
            groups.append({"params": list(self._network.head.parameters()), "lr": settings.value.learning_rate})
        self._optimizer = torch.optim.AdamW(
            groups,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
            fused=model.device.type == "cuda" or None,  # torch's default there needs as much again as the weights
        )

    def facts(self) -> dict[str, object]:
        """What the learner chose: rate, size, precision, device, layout."""
        weights, trained = (
            sum(each.nbytes for each in some) for some in (self.model.parameters(), self._network.parameters)
        )
        return {
            "learning_rate": self.rate,
            "parameters": self.size,
            "checkpoint_bytes": weights + trained * (2 if self._network.adapters is None else 3),  # AdamW's two moments
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "products": str(self._network.scorer.products).removeprefix("torch."),
            "device": str(self.model.device),
            "shares_prefixes": self._network.scorer.shares,
            "threads": torch.get_num_threads(),
        }

    def update(self, batch: Batch) -> Update:
        """Train on one batch with `algorithm.epochs` times `algorithm.mini_batches` optimizer steps. LightningError for
        an invalid batch.

        Metrics are means over the computed tokens, measured before the first step if the objective needs a pass there,
        otherwise during the first pass over the batch; loss, grad_norm and clip_fraction are means over all steps.
        `tokens` counts every sampled token of the batch, `trained_tokens` those of rows that can change the gradient:
        if the loss is a multiple of the advantages, sequences of zero advantages are left out. If that leaves no rows,
        the batch is only measured. `tokens_per_second` counts whole rows, including prompts.
        """
        started = time.perf_counter()
        check(batch.rows, self._network.vocabulary)
        weighted = self._usable(batch)
        sequences = indices(weighted)
        goal = self._goal(batch, sequences)
        rows = trainable(weighted, goal.skips_zero_advantage)
        rates = self._set_rates(batch.step)
        pairs = batch.pairs if batch.objective is Objective.DPO else ()
        mini_batches = split_mini_batches(rows or weighted, self.settings.algorithm.mini_batches if rows else 1, pairs)
        work = BatchUpdate(self._network, self._optimizer, self.settings, goal, mini_batches, sequences)
        metrics = work.train() if rows else work.measure()
        self.steps += bool(rows)
        self.version += 1
        seconds = time.perf_counter() - started
        read = sum(len(row.tokens) for row in weighted)
        metrics |= counts(batch.rows, rows) | {"learning_rate": rates[0], "seconds": seconds}
        return Update(self.version, metrics | {"tokens_per_second": read / seconds})

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """As `lightning_hub.backend.Scoring`. LightningError if what it needs does not exist. Changes nothing."""
        check(rows, self._network.vocabulary)
        return self._network.score(rows, what)

    def logprobs(self, row: Row) -> list[float]:
        """Log-probability of each sampled token of a row, in order."""
        with torch.no_grad():
            (micro,) = self._network.scorer.micro_batches([row], len(row.tokens))
            return [float(each) for each in self._network.scorer.score(micro).logprobs]

    def state(self) -> dict[str, Any]:
        """What `restore` needs in addition to the weights; tensors and numbers only."""
        head = self._network.head
        state = {"version": self.version, "steps": self.steps, "optimizer": self._optimizer.state_dict()}
        if self._network.adapters is not None:
            state["adapters"] = self._network.adapters.state()
        return state if head is None else {**state, "value_head": head.state_dict()}

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue as if never interrupted; the reference stays. ModelError, changing nothing, for another model."""
        own, head = self.model.state_dict(), self._network.head
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in weights.items()}:
            raise ModelError("this checkpoint is from a different model than the one being trained")
        if ("value_head" in state) != (head is not None):
            has, need = ("a", "none") if head is None else ("no", "one")
            raise ModelError(
                f"this checkpoint has {has} value head, but these settings need {need}: "
                "resume with the credit.advantage that the run began with"
            )
        self._check_adapters(state)
        adapters = self._network.adapters
        if adapters is None:
            self.model.load_state_dict(weights)
        else:
            adapters.restore(state["adapters"])
        if head is not None:
            head.load_state_dict(state["value_head"])
        # The saved state includes the settings of its time, but the current ones apply.
        groups = self._optimizer.param_groups
        now = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(self._optimizer.param_groups, now, strict=True):
            group.update(values)
        self.version, self.steps = int(state["version"]), int(state["steps"])

    def _check_adapters(self, state: Mapping[str, Any]) -> None:
        """ModelError if a checkpoint's adapters are not those of these settings."""
        own, found = self._network.adapters, state.get("adapters")
        if (own is None) != (found is None) or (own is not None and found is not None and not own.fits(found)):
            raise ModelError(
                "this checkpoint has other adapters than these settings ask for: resume with the lora.rank and "
                "lora.targets that the run began with"
            )

    def _usable(self, batch: Batch) -> list[Row]:
        """The rows with a weight. LightningError if the batch needs a value head or a reference that does not exist."""
        weighted = trainable(batch.rows, skip_zero_advantage=False)
        valued = any(row.returns is not None for row in weighted)
        if batch.objective is Objective.POLICY and self._network.head is None and valued:
            raise LightningError("rows have returns, but there is no value head: set credit.advantage=gae")
        if batch.objective is not Objective.DPO:
            return weighted
        if self._network.reference is None:
            raise LightningError("DPO needs the model that training began with: set stored.method=dpo")
        paired = {(rollout, pair.role) for pair in batch.pairs for rollout in (pair.chosen, pair.rejected)}
        missing = paired - set(map(sequence, weighted))
        if missing:
            rollout, role = min(missing)
            raise LightningError(f"a pair needs role {role!r} of rollout {rollout!r}, but the batch has no token of it")
        return [row for row in weighted if sequence(row) in paired]

    def _goal(self, batch: Batch, sequences: Mapping[tuple[str, str], int]) -> Goal:
        if batch.objective is Objective.SFT:
            return Supervised()
        if batch.objective is Objective.DPO:
            pairs = [[sequences[each, pair.role] for each in (pair.chosen, pair.rejected)] for pair in batch.pairs]
            return Preference(self.settings.stored.beta, torch.tensor(pairs, device=self.model.device).view(-1, 2))
        algorithm = self.settings.algorithm
        warming = self._network.head is not None and self.steps < self.settings.value.warmup_steps
        return Policy(self.settings, algorithm.epochs * algorithm.mini_batches, head_only=warming)

    def _set_rates(self, step: int) -> list[float]:
        """Set and return the rates of this step of the run: the model's, and the head's if there is one."""
        rates = []
        for group, peak in zip(
            self._optimizer.param_groups, (self.rate, self.settings.value.learning_rate), strict=False
        ):
            group["lr"] = rate_of_update(self.settings, peak, updates=self.steps, step=step)
            rates.append(group["lr"])
        return rates
