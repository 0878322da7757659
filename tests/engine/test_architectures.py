"""Every architecture that users bring, in this engine and its learner: what was sampled is what is trained on."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sequence import Params, Sequence
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Row
from lightning_sdk.settings import Settings
from tests.models.architectures import SCALED, SHAPES, make

SETTINGS = {"optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 0, "optimizer.decay": 0.0}
#: Shorter than a window, longer, and two that begin alike.
PROMPTS = [list(range(5, 5 + length)) for length in (4, 12, 40)] + [[*range(5, 35), 7, 8]]


def row(sequence: Sequence, place: int) -> Row:
    first, size = len(sequence.prompt), len(sequence.all_ids())
    weights, advantages, logprobs = (np.zeros(size, np.float32) for _ in range(3))
    weights[first:], advantages[first:] = 0.1, (-1.0) ** place
    logprobs[first:] = sequence.logprobs
    return Row(
        tokens=np.array(sequence.all_ids(), np.int32),
        weights=weights,
        advantages=advantages,
        logprobs=logprobs,
        temperature=1.0,
        version=0,
        role="",
        rollout=str(place),
    )


@pytest.mark.parametrize("name", SHAPES | SCALED)
def test_engine_and_learner_agree(name: str, tmp_path: Path) -> None:
    """With padded ids, windows, experts, heads of both kinds, and with weights that were learned and published."""
    model = make(name, tmp_path)
    learner = Learner(copy.deepcopy(model), Settings.from_dict(SETTINGS))
    engine = Engine(model, AutoTokenizer.from_pretrained(tmp_path), max_slots=4)
    try:
        for step in (1, 2):
            made = engine.generate(PROMPTS, Params(max_tokens=16, seed=step))
            rows = [row(each, place) for place, each in enumerate(made)]
            for each, sampled in zip(rows, made, strict=True):
                np.testing.assert_allclose(learner.logprobs(each), sampled.logprobs, atol=1e-3)
            update = learner.update(Batch(step, rows))
            assert update.metrics["grad_norm"] > 0.01
            moved = np.abs(np.subtract(learner.logprobs(rows[0]), made[0].logprobs))
            assert moved.max() > 0.05, "too little was learned to tell new weights from old ones"
            engine.publish(learner.model.state_dict(), step)
    finally:
        engine.close()
