"""The reference: the model that training began with, however often it was resumed."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_embedded import backend
from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Objective, Pair, Row
from lightning_hub.credit.batch import build_batch
from lightning_losses.divergence import divergence
from lightning_process.child import Child
from lightning_process.model import load
from lightning_sdk.errors import LightningError, SettingError
from lightning_sdk.settings import Settings
from tests.learner.gradients import make_learner
from tests.learner.tinymodel import SETTINGS, make_group_rows, weights
from tests.trajectories.conversations import call, rollout

KL: dict[str, Any] = {"divergence.coefficient": 0.5, "credit.advantage": "gae"}


def rows_of_three(seed: int = 0) -> list[Row]:
    """With one row in the middle that has nothing sampled in it."""
    rows = make_group_rows(groups=1, seed=seed)[:3]
    rows[1].weights[:] = 0
    return rows


@pytest.mark.parametrize("share", [True, False])
def test_scores_are_the_original_models_log_probabilities(share: bool) -> None:
    """After updates too: row by row in the order asked, at each row's temperature, 0 where nothing was sampled."""
    learner, twin = make_learner(share=share, divergence__coefficient=0.5), make_learner()
    for step in range(3):
        learner.update(Batch(step, make_group_rows(seed=step)))
    rows = make_group_rows(temperatures=(1.0, 0.5))
    rows[2].weights[:] = 0
    found = learner.score(rows, "reference")
    for row, scores in zip(rows, found, strict=True):
        assert scores.shape == row.tokens.shape and scores.dtype == np.float32
        assert (scores[row.weights == 0] == 0).all()
        if row.weights.any():
            assert scores[row.weights != 0] == pytest.approx(twin.logprobs(row), abs=1e-4)


class FarReference:
    """A backend whose reference is `gap` less likely to have said each token."""

    def __init__(self, gap: float) -> None:
        self.gap = gap

    def score(self, rows: Sequence[Row], what: str) -> list[NDArray[np.float32]]:
        return [np.where(row.weights != 0, row.logprobs - self.gap, 0).astype(np.float32) for row in rows]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("gap", [-45.0, -15.0, -3.0, 0.25, 3.0, 15.0, 45.0])
def test_what_the_reward_pays_is_what_the_loss_would_add(estimator: str, gap: float) -> None:
    """The same estimates in both places, and the same bound where the policy has left what the reference likes."""
    settings = Settings.from_dict(
        {
            "divergence.coefficient": 1.0,
            "divergence.place": "reward",
            "divergence.estimator": estimator,
            "credit.advantage": "reinforce",
        }
    )
    made = rollout(1, call(1, [1], ([2], [-0.25])), rewards={"": 0.0})
    (row,) = build_batch([made], settings, scoring=FarReference(gap)).rows
    logprobs = torch.tensor([-0.25])
    (added,) = divergence(logprobs, logprobs - gap, estimator).tolist()
    assert -row.advantages[1] == pytest.approx(added, rel=1e-5)
    assert estimator != "k3" or -row.advantages[1] <= 10


def test_scoring_changes_nothing() -> None:
    """Neither weights nor metrics of what follows."""
    settings: dict[str, Any] = {"divergence__coefficient": 0.5, "credit__advantage": "gae"}
    asked, quiet = make_learner(**settings), make_learner(**settings)
    for learner in (asked, quiet):
        learner.update(Batch(1, make_group_rows()))
    for what in ("reference", "values"):
        asked.score(make_group_rows(seed=2), what)
    assert torch.equal(weights(asked.model), weights(quiet.model)) and asked.version == quiet.version == 1
    assert all(each.grad is None for each in asked.model.parameters())
    for learner in (asked, quiet):
        learner.update(Batch(2, make_group_rows(seed=3)))
    assert torch.equal(weights(asked.model), weights(quiet.model))


def test_what_was_not_kept_is_refused() -> None:
    """With the setting that keeps it."""
    with pytest.raises(LightningError, match=r"no reference model is kept: set divergence\.coefficient"):
        make_learner().score(rows_of_three(), "reference")
    with pytest.raises(LightningError, match="'rewards': expected 'reference' or 'values'"):
        make_learner().score(rows_of_three(), "rewards")
    assert make_learner(stored__method="dpo").score(rows_of_three(), "reference")[0].any()


def train(learner: Learner, steps: range) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for step in steps:
        metrics = learner.update(Batch(step, make_group_rows(seed=step))).metrics
    return metrics


def test_resumed_run_is_held_near_the_original_model(tiny: Path, tmp_path: Path) -> None:
    """Not near its checkpoint: the same updates, bit for bit, and the same divergence."""
    settings = Settings.from_dict({**SETTINGS, "model": str(tiny), "divergence.coefficient": 0.5})
    whole, first = (Learner(load(settings.model).model, settings) for _ in range(2))
    expected = train(whole, range(6))
    train(first, range(3))
    checkpoint.write(tmp_path, first.model, load(settings.model).tokenizer, first.state())
    resumed, found = Learner(load(settings.model).model, settings), checkpoint.read(tmp_path)
    resumed.restore(found.weights, found.state)
    metrics = train(resumed, range(3, 6))
    assert torch.equal(weights(resumed.model), weights(whole.model))
    assert metrics["kl_reference"] == expected["kl_reference"] > 0


def test_scores_go_through_the_process(tiny: Path, tmp_path: Path) -> None:
    """The reference stays through updates and a load; the values are those of what was loaded."""
    rows, settings = rows_of_three(), {**SETTINGS, **KL, "model": str(tiny), "rollouts.staleness": 1}
    process = backend.start(Settings.from_dict(settings), tmp_path)
    try:
        assert isinstance(process, Child)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        assert process.facts()["threads"] == max(1, cores - 1), "one core is left to the engine"
        before = process.score(rows, "reference")
        assert [len(each) for each in before] == [len(row.tokens) for row in rows]
        assert before[0].any() and not before[1].any()
        assert not any(each.any() for each in process.score(rows, "values"))
        assert process.score([], "values") == []
        process.update(Batch(1, value(make_group_rows())))
        values = process.score(rows, "values")
        process.save(tmp_path)
        metrics = process.update(Batch(2, value(make_group_rows()))).metrics
        assert metrics["kl_reference/solver"] > 0 and metrics["value_loss"] > 0
        assert not close(process.score(rows, "values"), values)
        assert process.load(tmp_path) == 1
        assert close(process.score(rows, "values"), values) and close(process.score(rows, "reference"), before)
        with pytest.raises(LightningError, match="needs role 'solver' of rollout 'nobody'"):
            process.update(Batch(2, rows, Objective.DPO, (Pair("solver", "nobody", "r"),)))
    finally:
        process.close()


def close(left: list[Any], right: list[Any]) -> bool:
    return all(np.allclose(one, other, atol=1e-5) for one, other in zip(left, right, strict=True))


def value(rows: list[Row]) -> list[Row]:
    ones = {id(row): np.ones(len(row.tokens), np.float32) for row in rows}
    return [replace(row, returns=ones[id(row)], values=ones[id(row)] * 0) for row in rows]


def test_dual_clip_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    """Before a process is started."""
    settings = Settings.from_dict({"algorithm.loss": "cispo", "algorithm.clip_dual": 3.0})
    with pytest.raises(SettingError, match="'cispo' has no dual clip"):
        backend.start(settings, tmp_path)
