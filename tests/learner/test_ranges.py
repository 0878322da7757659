"""What settings accept is what learner and engine take: the ends of the ranges, for real."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_embedded.learning.learner import Learner
from lightning_embedded.serving.protocol import read_chat
from lightning_hub.backend import Batch
from lightning_sdk.settings import Settings
from tests.learner.tinymodel import make_group_rows, tiny_model, weights
from tests.sdk.ends import ACCEPTED

GROUPS = ("algorithm.", "divergence.", "importance.", "value.", "optimizer.", "seed", "stored.beta")
#: The highest allowed number of passes over a batch would take years.
SLOW = {"algorithm.epochs"}
#: Rates with which nothing can be learned; their results may be values that are not finite.
WILD = {("optimizer.learning_rate", 1e9), ("value.learning_rate", 1e9)}


@pytest.mark.parametrize(
    ("name", "value"), [each for each in ACCEPTED if each[0].startswith(GROUPS) and each[0] not in SLOW]
)
def test_a_learner_takes_the_ends(name: str, value: Any) -> None:
    """Two updates, with a value head, after which every weight is a number."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    settings = Settings.from_dict({"credit.advantage": "gae", name: value})
    learner = Learner(tiny_model(**shape), settings)
    rows = make_group_rows(groups=1)
    for step in (1, 2):
        learner.update(Batch(step, rows))
    assert torch.isfinite(weights(learner.model)).all() or (name, value) in WILD
    assert np.random.default_rng(settings.seed).random() < 1


@pytest.mark.parametrize("name", ["temperature", "max_tokens"])
def test_the_engine_takes_the_ends(name: str) -> None:
    """The engine accepts the ends of ranges of training and of evaluation."""
    for setting, value in ACCEPTED:
        if setting.endswith(f".{name}"):
            asked = {"model": "m", "messages": [{"role": "user", "content": "a"}], name: value}
            assert getattr(read_chat(asked).common.params, name) == value
