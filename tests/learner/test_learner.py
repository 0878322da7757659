"""The learner: what an update does to the weights, and what it says of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_embedded.learning.learner import Learner
from lightning_embedded.learning.logprobs import Scorer
from lightning_hub.backend import Batch, Row
from lightning_losses.schedule import default_rate, rate_at, rate_of_update
from lightning_sdk.errors import LightningError
from lightning_sdk.settings import Optimizer, Settings
from tests.learner.tinymodel import make_group_rows, make_row, tiny_model, weights

METRICS = {
    "loss", "grad_norm", "learning_rate", "entropy", "clip_fraction", "truncated_fraction", "kl_sampler",
    "kl_sampler_max", "tokens", "trained_tokens", "rows", "trained_rows", "positions", "seconds", "tokens_per_second",
    "skipped", "optimizer_steps", "entropy/solver", "clip_fraction/solver", "kl_sampler/solver",
}  # fmt: skip


def make_learner(**changes: Any) -> Learner:
    values = {"optimizer.learning_rate": 1e-3, "optimizer.warmup_steps": 0, **changes}
    return Learner(tiny_model(), Settings.from_dict({name.replace("__", "."): value for name, value in values.items()}))


def on_policy(learner: Learner, rows: list[Row]) -> list[Row]:
    """The rows as this learner's present policy would have sampled them."""
    for row in rows:
        row.logprobs[row.weights != 0] = learner.logprobs(row)
    return rows


def test_update_reports_every_metric_and_the_next_version() -> None:
    """Names that the hub draws are there, finite, and counted right."""
    learner, rows = make_learner(), make_group_rows()
    update = learner.update(Batch(1, on_policy(learner, rows)))
    assert update.version == 1
    assert update.metrics.keys() == METRICS
    assert np.isfinite(list(update.metrics.values())).all()
    assert update.metrics["tokens"] == sum((row.weights != 0).sum() for row in rows)
    assert update.metrics["kl_sampler"] == pytest.approx(0, abs=1e-5)
    assert update.metrics["skipped"] == 0 and update.metrics["learning_rate"] == 1e-3
    assert 0 < update.metrics["entropy"] < np.log(260)


def test_update_makes_good_tokens_likelier() -> None:
    """After some steps the log-probability of rewarded rows is up, of punished rows down."""
    learner = make_learner(steps=10)
    good, bad = make_row([1, 2, 3, 4], [2, 3], 1.0, 0.25), make_row([1, 2, 5, 6], [2, 3], -1.0, 0.25)
    before = [sum(learner.logprobs(row)) for row in (good, bad)]
    for step in range(5):
        learner.update(Batch(step, on_policy(learner, [good, bad])))
    after = [sum(learner.logprobs(row)) for row in (good, bad)]
    assert after[0] > before[0] + 0.5 and after[1] < before[1] - 0.5


def test_micro_batches_change_no_update() -> None:
    """The weights after an update are the same for any token budget."""
    after = []
    for tokens in (1, 50, 100_000):
        learner = make_learner(optimizer__micro_batch_tokens=tokens)
        learner.update(Batch(1, make_group_rows()))
        after.append(weights(learner.model))
    assert torch.allclose(after[0], after[2], atol=1e-5) and torch.allclose(after[1], after[2], atol=1e-5)


def test_same_seed_same_weights() -> None:
    """Two learners with the same batches agree to the last bit."""
    first, second = make_learner(), make_learner()
    for learner in (first, second):
        for step in range(3):
            learner.update(Batch(step, make_group_rows(seed=step)))
    assert torch.equal(weights(first.model), weights(second.model))


def test_batch_without_signal_is_measured_and_changes_nothing() -> None:
    """All advantages 0 and no KL: no step, momentum included, but the metrics are real."""
    learner = make_learner()
    learner.update(Batch(1, make_group_rows()))
    before, flat = weights(learner.model), make_group_rows()
    for row in flat:
        row.advantages[:] = 0
    update = learner.update(Batch(2, flat))
    assert torch.equal(weights(learner.model), before)
    assert update.metrics["grad_norm"] == 0 and update.metrics["trained_tokens"] == 0
    assert update.metrics["tokens"] > 0 and update.metrics["entropy"] > 0


def test_empty_batch_changes_nothing() -> None:
    """No rows at all: a version, and metrics that are numbers."""
    learner = make_learner()
    before = weights(learner.model)
    update = learner.update(Batch(1, []))
    assert torch.equal(weights(learner.model), before)
    assert np.isfinite(list(update.metrics.values())).all()


@pytest.mark.parametrize("name", ["advantages", "logprobs"])
def test_numbers_that_are_not_finite_skip_the_step(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One NaN in a batch costs that batch, not the model."""
    learner, rows = make_learner(), make_group_rows()
    before = weights(learner.model)
    getattr(rows[0], name)[np.flatnonzero(rows[0].weights)[0]] = np.nan
    update = learner.update(Batch(1, rows))
    assert update.metrics["skipped"] == 1
    assert torch.equal(weights(learner.model), before)
    assert "skipped" in caplog.text
    assert learner.update(Batch(2, make_group_rows())).metrics["skipped"] == 0
    assert not torch.equal(weights(learner.model), before) and torch.isfinite(weights(learner.model)).all()


def test_gradient_is_clipped_to_the_norm_that_was_set() -> None:
    """grad_norm is reported before clipping, and a hundredfold advantage moves no further than its direction says."""
    rows = make_group_rows()
    for row in rows:
        row.advantages[:] *= 1e4
    learner = make_learner(optimizer__max_norm=1e-3)
    seen: list[Tensor] = []
    step = learner._optimizer.step
    learner._optimizer.step = lambda *_: seen.append(  # type: ignore[method-assign]
        torch.cat([each.grad.flatten() for each in learner.model.parameters() if each.grad is not None])
    )
    update = learner.update(Batch(1, rows))
    learner._optimizer.step = step  # type: ignore[method-assign]
    assert update.metrics["grad_norm"] > 1
    assert float(seen[0].norm()) == pytest.approx(1e-3, rel=1e-3)


def test_epochs_clip_against_the_first_pass() -> None:
    """Several passes with a large rate leave the trust region, and the clipped tokens are counted."""
    one, many = (
        make_learner(optimizer__learning_rate=0.1),
        make_learner(optimizer__learning_rate=0.1, algorithm__epochs=4),
    )
    assert one.update(Batch(1, make_group_rows())).metrics["clip_fraction"] == 0
    assert many.update(Batch(1, make_group_rows())).metrics["clip_fraction"] > 0.05


def test_all_epochs_are_steps_on_the_loss_against_the_first() -> None:
    """Three epochs equal three steps of AdamW, written out, whose `old` stays that of the first pass."""
    learner, twin, rows = make_learner(algorithm__epochs=3), tiny_model(), make_group_rows()
    learner.update(Batch(1, rows))
    scorer, steps = Scorer(twin), torch.optim.AdamW(twin.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    (micro,) = scorer.micro_batches(rows, 100_000)
    old, targets = None, micro.targets
    for _ in range(3):
        logprobs = scorer.score(micro).logprobs
        old = logprobs.detach() if old is None else old
        rho = (old - targets.sampler).exp().clamp(max=2.0)
        ratio = (logprobs - old).exp()
        bound = ratio.clamp(0.8, 1.28) * targets.advantages
        (-targets.weights * rho * torch.minimum(ratio * targets.advantages, bound)).sum().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        steps.step()
        steps.zero_grad()
    assert torch.allclose(weights(learner.model), weights(twin), atol=1e-6)


def test_kl_holds_the_model_near_the_reference() -> None:
    """With a strong KL term the divergence after some steps is smaller than with a weak one, and it is reported."""
    found = []
    for kl in (1e-6, 10.0):
        learner, rows = make_learner(divergence__coefficient=kl, optimizer__learning_rate=3e-3), make_group_rows()
        for step in range(6):
            metrics = learner.update(Batch(step, on_policy(learner, rows))).metrics
        found.append(metrics["kl_reference"])
    assert 0 < found[1] < 0.5 * found[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (make_row([1, 2], [0], 1.0, 1.0), "first token has a weight"),
        (make_row([1, 260], [1], 1.0, 1.0), "a token id is outside 0 to 259"),
        (make_row([1, 2], [1], 1.0, 1.0, temperature=0.0), "temperature is 0.0"),
        (replace(make_row([1, 2], [1], 1.0, 1.0), tokens=np.zeros(3, np.int32), rollout="r7"), "r7.*3 tokens"),
    ],
)
def test_malformed_rows_are_refused_by_rollout(row: Row, message: str) -> None:
    """Nothing is trained on a batch that cannot be right."""
    with pytest.raises(LightningError, match=message):
        make_learner().update(Batch(1, [row]))


def test_default_rate_follows_the_models_size() -> None:
    """From small to large, between the bounds; facts say which value was taken."""
    assert [default_rate(size) for size in (100_000, 2_200_000, 135_000_000, 7_000_000_000)] == [
        5e-4,
        4.5e-4,
        7.4e-6,
        1e-6,
    ]
    learner = Learner(tiny_model(), Settings())
    assert learner.facts()["learning_rate"] == default_rate(learner.size) == learner.rate


def test_in_turns_with_prompts_the_rate_decays_with_the_run() -> None:
    """Of 20 steps, 8 are updates: they warm up once, over the first of them, and the last one is the smallest. Without
    phases the step's number does not matter."""
    updates = [5, 6, 7, 8, 13, 14, 19, 20]
    both = Settings.from_dict({"steps": 20, "tune": "prompts"})
    rates = [rate_of_update(both, 1.0, updates=done, step=step) for done, step in enumerate(updates)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 2 / 6, 1 / 6])
    alone = Settings.from_dict({"steps": 20})
    assert [rate_of_update(alone, 1.0, updates=done, step=step) for done, step in enumerate(updates)] == [
        rate_at(done, 20, 1.0, alone.optimizer) for done in range(8)
    ]


def test_the_rate_of_an_update_is_that_of_its_step_in_the_run() -> None:
    """The learner counts its own updates, and the batch says which step of the run it is."""
    learner, rows = make_learner(tune="prompts", steps=20), make_group_rows()
    rates = [learner.update(Batch(step, rows)).metrics["learning_rate"] for step in (14, 20)]
    assert rates == pytest.approx([1e-3, 1e-3 / 6])


def test_rate_warms_up_holds_and_decays_to_a_tenth() -> None:
    """Over 10 steps with 3 of warm-up and the last 30% of decay."""
    rates = [rate_at(step, 10, 1.0, Optimizer()) for step in range(12)]
    assert rates[:8] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    assert rates[8:] == pytest.approx([2 / 3, 1 / 3, 0.1, 0.1])
