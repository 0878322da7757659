"""The network: the model that is trained, its adapters, its value head, and the reference model that it began as."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.learning.adapters import Adapters
from lightning_embedded.learning.logprobs import Scorer, Scores
from lightning_embedded.learning.micro_batches import MicroBatch, spread
from lightning_embedded.learning.value_head import ValueHead
from lightning_hub.backend import Row
from lightning_sdk.errors import LightningError
from lightning_sdk.settings import Settings


class Network:
    """Keeps what the settings need: a reference for the divergence or DPO, a value head for 'gae'."""

    def __init__(
        self, model: PreTrainedModel, settings: Settings, *, share: bool, constraints: Constraints | None = None
    ) -> None:
        """The reference is `model` in its current state."""
        needs_reference = settings.divergence.coefficient > 0 or settings.stored.method == "dpo"
        self.model = model
        self.reference = Scorer(copy.deepcopy(model).requires_grad_(False), share=share) if needs_reference else None
        self.scorer = Scorer(model, share=share, constraints=constraints)
        self.head = _head(model) if any(each.advantage == "gae" for each in settings.credits()) else None
        self.adapters = Adapters(model, settings.lora) if settings.lora.rank else None
        trained = model.parameters() if self.adapters is None else self.adapters.parameters()
        self.parameters = [each for each in trained if each.requires_grad]
        self._budget = settings.optimizer.micro_batch_tokens

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return int(self.model.config.get_text_config().vocab_size)

    def micro_batches(self, rows: Sequence[Row]) -> list[MicroBatch]:
        return list(self.scorer.micro_batches(rows, self._budget))

    def refer(self, micro: MicroBatch) -> Tensor | None:
        """[M] log-probabilities under the reference, or None without one."""
        if self.reference is None:
            return None
        with torch.no_grad():
            return self.reference.score(micro).logprobs

    def values(self, micro: MicroBatch, scores: Scores) -> Tensor:
        """[M] the value head's estimate before each token."""
        if self.head is None:
            raise LightningError("there is no value head: set credit.advantage=gae, or role.NAME.advantage=gae")
        values: Tensor = self.head(scores.hidden)
        return values.index_select(0, micro.targets.place)

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        """[T] scores for each row, 0 where no token was sampled: see `lightning_hub.backend.Scoring`. Changes nothing.

        LightningError if `what` is unknown, or the reference or head that it needs does not exist.
        """
        if what not in ("reference", "values"):
            raise LightningError(f"score {what!r}: expected 'reference' or 'values'")
        if what == "reference" and self.reference is None:
            raise LightningError("no reference model is kept: set divergence.coefficient above 0, or stored.method=dpo")
        found = [np.zeros(len(row.tokens), np.float32) for row in rows]
        asked = [(row, array) for row, array in zip(rows, found, strict=True) if row.weights.any()]
        kept = [row for row, _ in asked]
        with torch.no_grad():
            for micro in self.micro_batches(kept):
                values = self.refer(micro) if what == "reference" else self.values(micro, self.scorer.score(micro))
                assert values is not None
                spread(micro, values, [array for _, array in asked], kept)
        return found


def _head(model: PreTrainedModel) -> ValueHead:
    output: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return ValueHead(output.weight.shape[1], model.device)  # type: ignore[index, arg-type]
