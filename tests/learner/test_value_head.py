"""The value head: what it learns, with which weights and rate, when it alone is trained, and that it is saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_embedded.learning import checkpoint
from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Batch, Row
from lightning_process.model import load
from lightning_sdk.errors import LightningError, ModelError
from lightning_sdk.settings import Settings
from tests.learner.gradients import SMALL, Drawn, assert_close, gradients, make_learner
from tests.learner.tinymodel import make_group_rows, tiny_model, weights

GAE: dict[str, Any] = {"credit__advantage": "gae", "value__clip": 0.3, "value__coefficient": 0.5}


def value(rows: list[Row], seed: int = 0) -> list[Row]:
    """With returns and with what the head had predicted, both at random."""
    draw = np.random.default_rng(seed)
    return [
        replace(
            row,
            returns=draw.normal(1.0, 1.0, len(row.tokens)).astype("f4") * (row.weights != 0),
            values=draw.normal(0.0, 0.3, len(row.tokens)).astype("f4") * (row.weights != 0),
        )
        for row in rows
    ]


def some_rows() -> list[Row]:
    return value(
        [Drawn(f"r{index}", "a", [7, 8, *range(index, index + 6)], [2, 3, 5, 6, 7], index).row() for index in range(4)]
    )


def by_hand(rows: list[Row], policy: bool) -> Tensor:
    """Gradient of the first step, whose values are all 0 and whose ratios are all 1, in plain eager mode."""
    model = tiny_model(**SMALL).train(False)
    head = torch.nn.Linear(SMALL["hidden_size"], 1)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    total = torch.zeros(())
    for row in rows:
        tokens, at = torch.from_numpy(row.tokens).long(), torch.from_numpy(np.flatnonzero(row.weights))
        hidden = model.model(input_ids=tokens[None]).last_hidden_state[0]
        lp = model.lm_head(hidden).log_softmax(-1)[at - 1, tokens[at]]
        value = head(hidden)[at - 1, 0]
        w, a, mu = (torch.from_numpy(each)[at] for each in (row.weights, row.advantages, row.logprobs))
        rho = (lp.detach() - mu).exp().clamp(max=2.0)
        if policy:
            total = total - (w * rho * a * lp).sum()
        if row.returns is not None and row.values is not None:
            earned, old = torch.from_numpy(row.returns)[at], torch.from_numpy(row.values)[at]
            near = torch.minimum(torch.maximum(value, old - 0.3), old + 0.3)
            total = total + 0.5 * 0.5 * (w * torch.maximum((value - earned) ** 2, (near - earned) ** 2)).sum()
    parameters = [*model.parameters(), *head.parameters()]
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
    return torch.cat([each.flatten() for each in flat])


def test_value_loss_joins_the_policy_loss_with_the_tokens_weights() -> None:
    """Gradients of model and head; a row without returns only has a policy term."""
    rows = some_rows()
    rows[0] = replace(rows[0], returns=None, values=None)
    found = gradients(rows, optimizer__micro_batch_tokens=8, **GAE)
    assert_close([by_hand(rows, policy=True)], found)


def test_values_move_the_model_once_the_head_has_weights() -> None:
    """At first the head is 0 and sends nothing back; after a step the same rows without advantage move the model."""
    learner, rows = make_learner(**GAE), [replace(row, advantages=row.advantages * 0) for row in some_rows()]
    first, second = (learner.update(Batch(step, rows)).metrics for step in (1, 2))
    assert first["grad_norm"] == 0 and first["value_grad_norm"] > 0
    assert second["grad_norm"] > 0
    assert first["trained_tokens"] == 20, "rows of no advantage teach the head"


def test_warm_up_trains_the_head_alone() -> None:
    """For as many steps as were set not one bit of the model changes; the rows' entropy bonus and divergence wait."""
    changes: dict[str, Any] = {
        "value__warmup_steps": 2,
        "algorithm__entropy": 0.1,
        "divergence__coefficient": 0.1,
        **GAE,
    }
    learner, rows = make_learner(**changes), some_rows()
    before, losses = weights(learner.model), []
    for step in (1, 2):
        losses.append(learner.update(Batch(step, rows)).metrics["value_loss"])
        assert torch.equal(weights(learner.model), before)
    assert losses[1] < losses[0]
    assert learner.score(rows, "values")[0].any()
    learner.update(Batch(3, rows))
    assert not torch.equal(weights(learner.model), before)


def test_head_learns_the_returns_with_its_own_rate() -> None:
    """Explained variance, told from what was predicted, comes near 1; the rate is not the model's."""
    changes: dict[str, Any] = {
        "value__learning_rate": 0.05,
        "optimizer__learning_rate": 1e-12,
        "value__clip": 0.0,
        "steps": 200,
    }
    learner = make_learner(**{**GAE, **changes})
    rows = some_rows()
    told = []
    for step in range(150):
        rows = [replace(row, values=each) for row, each in zip(rows, learner.score(rows, "values"), strict=True)]
        told.append(learner.update(Batch(step, rows)).metrics)
    assert told[0]["value_explained_variance"] == pytest.approx(0, abs=1e-6)
    assert told[-1]["value_explained_variance"] > 0.5
    assert told[-1]["value_loss"] < 0.3 * told[0]["value_loss"]


def test_values_are_those_before_each_sampled_token() -> None:
    """Only the tokens before count: another token there, and all after it, change nothing; 0 where none was sampled."""
    learner, rows = make_learner(value__learning_rate=0.1, **GAE), some_rows()
    learner.update(Batch(1, rows))
    (before,), row = learner.score(rows[:1], "values"), rows[0]
    assert before.shape == row.tokens.shape and before.dtype == np.float32
    assert (before[row.weights == 0] == 0).all() and (before[row.weights != 0] != 0).all()
    other = replace(row, tokens=row.tokens.copy())
    other.tokens[5:] += 50
    (after,) = learner.score([other], "values")
    assert after[:6] == pytest.approx(before[:6], abs=1e-6) and abs(after[6] - before[6]) > 1e-4


def test_roles_decide_whether_there_is_a_head() -> None:
    """One role with 'gae' is enough; with none, values are refused, and so are rows with returns."""
    learner = Learner(tiny_model(**SMALL), Settings.from_dict({"role.critic.advantage": "gae"}))
    assert learner.score(some_rows(), "values")
    for ask in (
        lambda: make_learner().score(some_rows(), "values"),
        lambda: make_learner().update(Batch(1, some_rows())),
    ):
        with pytest.raises(LightningError, match=r"no value head: set credit\.advantage=gae"):
            ask()


SETTINGS: dict[str, Any] = {"steps": 8, "optimizer.learning_rate": 1e-3, "value.warmup_steps": 1}


def from_folder(folder: Path, **changes: Any) -> Learner:
    return Learner(load(str(folder)).model, Settings.from_dict({**SETTINGS, "credit.advantage": "gae", **changes}))


def test_resumed_training_with_a_head_is_the_uninterrupted_one_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    """The head, its momentum and the warm-up go through a checkpoint."""
    whole, first, second = (from_folder(tiny) for _ in range(3))
    probe = value(make_group_rows(seed=9))
    for step in range(4):
        whole.update(Batch(step, value(make_group_rows(seed=step), step)))
    for step in range(2):
        first.update(Batch(step, value(make_group_rows(seed=step), step)))
    checkpoint.write(tmp_path, first.model, load(str(tiny)).tokenizer, first.state())
    found = checkpoint.read(tmp_path)
    second.restore(found.weights, found.state)
    for step in range(2, 4):
        second.update(Batch(step, value(make_group_rows(seed=step), step)))
    assert torch.equal(weights(second.model), weights(whole.model))
    for one, other in zip(second.score(probe, "values"), whole.score(probe, "values"), strict=True):
        assert one.any() and np.array_equal(one, other)


@pytest.mark.parametrize(("wrote", "reads"), [("gae", "rloo"), ("rloo", "gae")])
def test_checkpoint_with_and_without_a_head_are_not_exchanged(
    wrote: str, reads: str, tiny: Path, tmp_path: Path
) -> None:
    """Resuming with another advantage is refused before anything is changed."""
    writer, reader = (from_folder(tiny, **{"credit.advantage": kind}) for kind in (wrote, reads))
    writer.update(Batch(1, make_group_rows()))
    checkpoint.write(tmp_path, writer.model, load(str(tiny)).tokenizer, writer.state())
    found, before = checkpoint.read(tmp_path), weights(reader.model)
    with pytest.raises(ModelError, match=r"value head, .* resume with the credit\.advantage"):
        reader.restore(found.weights, found.state)
    assert torch.equal(weights(reader.model), before) and reader.version == 0
