"""Gradients that a learner really takes, step by step, and batches to take them on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Objective, Pair, Row
from lightning_sdk.settings import Settings
from tests.learner.tinymodel import make_row, tiny_model

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
#: Where every step is as long as its gradient, and no gradient is clipped.
STEPS = {"optimizer.learning_rate": 0.3, "optimizer.warmup_steps": 0, "optimizer.decay": 0.0, "optimizer.max_norm": 1e9}


class _Descent(torch.optim.SGD):
    """Plain steps along the gradient, which is kept: AdamW's would make much of rounding."""

    def __init__(self, parameters: list[Tensor]) -> None:
        super().__init__(parameters, lr=0.0)
        self.seen: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        parameters = [each for group in self.param_groups for each in group["params"]]
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        self.seen.append(torch.cat([grad.flatten() for grad in grads]).clone())
        super().step(closure)


def make_learner(*, share: bool = True, seed: int = 0, **settings: Any) -> Learner:
    """A learner of a tiny model; names of settings with __ for the dot."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return Learner(tiny_model(seed, **SMALL), Settings.from_dict({**STEPS, **named}), share=share)


def gradients(
    rows: Sequence[Row],
    *,
    learner: Learner | None = None,
    objective: Objective = Objective.POLICY,
    pairs: tuple[Pair, ...] = (),
    **settings: Any,
) -> list[Tensor]:
    """The gradient of every optimizer step of one update: the model's parameters, then the value head's."""
    learner = learner or make_learner(**settings)
    descent = _Descent([each for group in learner._optimizer.param_groups for each in group["params"]])
    learner._optimizer = descent  # type: ignore[assignment]
    learner.update(Batch(1, list(rows), objective, pairs))
    return descent.seen


def assert_close(left: Sequence[Tensor], right: Sequence[Tensor], size: float | None = None) -> None:
    """Equal to rounding: a difference below 1e-4 of the gradient's norm, or of `size`."""
    assert len(left) == len(right) and left
    for one, other in zip(left, right, strict=True):
        assert float((one - other).norm()) <= 1e-4 * (size or float(one.norm())) + 1e-7


@dataclass(frozen=True)
class Drawn:
    """One role's part of a rollout: a prompt, then sampled tokens with what came between them."""

    rollout: str
    role: str
    tokens: list[int]
    sampled: list[int]
    seed: int

    def row(self, weight: float = 0.02, temperature: float = 1.0) -> Row:
        """A row with its own advantage and sampler's log-prob for each token."""
        draw = np.random.default_rng(self.seed)
        row = make_row(self.tokens, self.sampled, 1.0, weight, rollout=self.rollout, role=self.role)
        row.advantages[self.sampled] = draw.normal(size=len(self.sampled))
        row.logprobs[self.sampled] = draw.normal(-5.5, 0.4, size=len(self.sampled))
        return replace(row, temperature=temperature)


def cut(row: Row, place: int) -> list[Row]:
    """The same row as two: what counts before `place`, and what counts from there on, in its whole context."""
    before, after = np.arange(len(row.tokens)) < place, np.arange(len(row.tokens)) >= place
    first = replace(row, weights=row.weights * before, advantages=row.advantages * before)
    second = replace(row, weights=row.weights * after, advantages=row.advantages * after)
    return [each for each in (first, second) if each.weights.any()]


@st.composite
def parts(draw: st.DrawFn, roles: Sequence[str] = ("a", "b")) -> list[Drawn]:
    """Parts of 2 to 4 rollouts, each role in most of them; few different ids, so that rows begin alike."""
    found = []
    for rollout in range(draw(st.integers(2, 4))):
        for role in roles:
            tokens = draw(st.lists(st.integers(0, 3), min_size=4, max_size=10))
            sampled = draw(st.sets(st.integers(1, len(tokens) - 1), min_size=2))
            found.append(Drawn(f"r{rollout}", role, tokens, sorted(sampled), draw(st.integers(0, 99))))
    return found
