"""`optimizer.micro_batch_tokens` bounds the largest tensor, whatever rows have in common."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Row
from lightning_sdk.settings import Settings
from tests.learner.gradients import SMALL, STEPS
from tests.learner.tinymodel import make_row, tiny_model

WIDTH, VOCABULARY, BUDGET = SMALL["hidden_size"], 2048, 64
#: Every kind of forward and backward pass.
KINDS: list[dict[str, Any]] = [
    {},
    {"algorithm.entropy": 0.01},
    {"algorithm.loss": "gspo", "algorithm.epochs": 2},
    {"divergence.coefficient": 0.1, "importance.level": "sequence"},
]


class _Largest(TorchDispatchMode):
    """Watches every tensor that an operation makes, forward and backward; views of others count as what they show."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = (each.untyped_storage().nbytes() // 4 for each in tree_leaves(made) if isinstance(each, torch.Tensor))
        self.elements = max([self.elements, *sizes])
        return made


@contextmanager
def largest_tensor() -> Iterator[_Largest]:
    with _Largest() as seen:
        yield seen


def equal_rows(count: int) -> list[Row]:
    """Every rollout says the same."""
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 12).tolist()
    return [make_row(tokens, range(4, 12), (-1.0) ** n, 1 / count, rollout=str(n)) for n in range(count)]


def rows_of_one_prompt(count: int) -> list[Row]:
    """A long prompt, and a short answer of each rollout's own."""
    prompt = np.random.default_rng(0).integers(0, VOCABULARY, 50).tolist()
    return [make_row([*prompt, n, n], (50, 51), (-1.0) ** n, 1 / count, rollout=str(n)) for n in range(count)]


def update(rows: Sequence[Row], share: bool = True, **settings: Any) -> int:
    """Elements of the largest tensor in one update."""
    named = {**STEPS, "optimizer.micro_batch_tokens": BUDGET, **settings}
    model = tiny_model(**{**SMALL, "vocab_size": VOCABULARY})
    learner = Learner(model, Settings.from_dict(named), share=share)
    with largest_tensor() as seen:
        learner.update(Batch(1, list(rows)))
    return seen.elements


@pytest.mark.parametrize("rows", [equal_rows, rows_of_one_prompt])
@pytest.mark.parametrize(("share", "settings"), [*((True, kind) for kind in KINDS), (False, {})], ids=str)
def test_no_tensor_grows_with_the_rows(rows: Callable[[int], list[Row]], share: bool, settings: dict[str, Any]) -> None:
    """The logits of a budget of tokens are the largest, however many rollouts there are."""
    assert update(rows(24), share, **settings) <= BUDGET * VOCABULARY


def test_keys_are_not_copied_without_bound() -> None:
    """A hundred answers to one long prompt are few positions, and for attention a hundred times the prompt."""
    model = tiny_model(**{**SMALL, "vocab_size": 260, "max_position_embeddings": 512})
    rows = [make_row([*([3] * 250), n, n], (250, 251), (-1.0) ** n, 1.0, rollout=str(n)) for n in range(100)]
    learner = Learner(model, Settings.from_dict({**STEPS, "optimizer.micro_batch_tokens": 300}))
    with largest_tensor() as seen:
        learner.update(Batch(1, rows))
    assert seen.elements <= 1.6 * 16 * 300 * WIDTH
    assert 100 * 250 * WIDTH > 1.6 * 16 * 300 * WIDTH
