"""Whole updates against their definitions: one graph over the whole batch, row by row, with nothing of ours in it."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_hub.backend import Batch, Objective, Pair, Row
from lightning_sdk.errors import LightningError
from tests.learner.gradients import SMALL, Drawn, assert_close, cut, gradients, make_learner
from tests.learner.tinymodel import tiny_model

RATE = 0.3


class Sequence:
    """All tokens of one role in one rollout, as one tensor each, under a model in plain eager mode."""

    def __init__(self, rows: list[Row], model: torch.nn.Module) -> None:
        parts = [(row, np.flatnonzero(row.weights)) for row in rows]
        found = [self._of(row, at, model) for row, at in parts]
        self.lp, self.entropy = (torch.cat(each) for each in zip(*found, strict=True))
        self.weights, self.advantages, self.sampler = (
            torch.from_numpy(np.concatenate([getattr(row, name)[at] for row, at in parts]))
            for name in ("weights", "advantages", "logprobs")
        )

    def _of(self, row: Row, at: Any, model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        tokens = torch.from_numpy(row.tokens).long()
        everything = (model(input_ids=tokens[None]).logits[0] / row.temperature).log_softmax(-1)
        entropy = torch.special.entr(everything.exp()).sum(-1)
        return everything[at - 1, tokens[at]], entropy[at - 1]


def sequences(rows: list[Row], model: torch.nn.Module) -> dict[tuple[str, str], Sequence]:
    keys = dict.fromkeys((row.rollout, row.role) for row in rows)
    return {key: Sequence([row for row in rows if (row.rollout, row.role) == key], model) for key in keys}


def descend(loss: Callable[[torch.nn.Module], Tensor], steps: int) -> list[Tensor]:
    """The gradients of plain steps down a loss."""
    model, found = tiny_model(**SMALL).train(False), []
    for _ in range(steps):
        grads = torch.autograd.grad(loss(model), list(model.parameters()))
        found.append(torch.cat([grad.flatten() for grad in grads]))
        with torch.no_grad():
            for parameter, grad in zip(model.parameters(), grads, strict=True):
                parameter.sub_(RATE * grad)
    return found


def batch_rows(temperature: float = 0.8, level: float = 1.0) -> list[Row]:
    """Three rollouts of two roles; the second role's sequences come as two rows. One advantage for a sequence."""
    rows = []
    for index in range(6):
        part = Drawn(f"r{index // 2}", "ab"[index % 2], [9, 8, *range(index, index + 7)], [2, 3, 5, 6, 7, 8], index)
        row = part.row(weight=0.05, temperature=temperature)
        row.advantages[part.sampled] = level * (-1) ** index * (1 + index)
        rows += cut(row, 5) if index % 2 else [row]
    return rows


def importance_of(s: Sequence, old: Tensor, kind: str, level: str) -> Tensor:
    gap = old - s.sampler
    ratio = (gap.sum().expand_as(gap) if level == "sequence" else gap).exp()
    if kind == "truncate":
        return ratio.clamp(max=2.0)
    return torch.where((ratio >= 0.5) & (ratio <= 2.0), ratio, 0.0) if kind == "mask" else torch.ones_like(ratio)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["truncate", "mask", "off"])
@pytest.mark.parametrize("loss", ["ppo", "gspo", "cispo"])
def test_policy_objective(loss: str, kind: str, level: str) -> None:
    """Three epochs of each loss with each importance weight, with divergence and entropy, are what the papers say.

    GSPO here is its sequence form, with the gradient through the sequence's ratio, written out; where each token has
    its own importance weight, it is the token form, since only that one has a place for it.
    """
    rows, olds, references = batch_rows(), dict[Any, Tensor](), dict[Any, Tensor]()

    def whole(model: torch.nn.Module) -> Tensor:
        total = torch.zeros(())
        for key, s in sequences(rows, model).items():
            old, reference = olds.setdefault(key, s.lp.detach()), references.setdefault(key, s.lp.detach())
            ratio = (s.lp - old).exp()
            if loss == "gspo":
                ratio = ratio.log().mean().exp().expand_as(ratio)
                if level == "token" and kind != "off":
                    ratio = ratio.detach() * (s.lp - s.lp.detach()).exp()
            bounded = ratio.clamp(0.8, 1.28)
            surrogate = torch.minimum(ratio * s.advantages, bounded * s.advantages)
            if loss == "cispo":
                surrogate = bounded.detach() * s.advantages * s.lp
            pull = ((reference - s.lp).exp() - (reference - s.lp) - 1).clamp(max=10)
            rho = importance_of(s, old, kind, level)
            total = total + (s.weights * (-rho * surrogate + 0.5 * pull - 0.1 * s.entropy)).sum()
        return total

    changes: dict[str, Any] = {
        "algorithm__loss": loss,
        "importance__kind": kind,
        "importance__level": level,
        "algorithm__epochs": 3,
    }
    more: dict[str, Any] = {"divergence__coefficient": 0.5, "algorithm__entropy": 0.1, "optimizer__learning_rate": RATE}
    found = gradients(rows, optimizer__micro_batch_tokens=1, **changes, **more)
    assert_close(descend(whole, 3), found)


def test_sft_objective() -> None:
    """Minus the weighted log-probability; advantages and sampler's log-probs have no say."""
    rows = [replace(row, advantages=row.advantages * np.nan, logprobs=row.logprobs - 3) for row in batch_rows()]

    def whole(model: torch.nn.Module) -> Tensor:
        return -torch.stack([(s.weights * s.lp).sum() for s in sequences(rows, model).values()]).sum()

    expected = descend(whole, 2)
    found = gradients(rows, objective=Objective.SFT, algorithm__epochs=2, optimizer__learning_rate=RATE)
    assert_close(expected, found)


def test_dpo_objective() -> None:
    """Equation 7 in one graph, over pairs that share a rollout and have their own weights."""
    rows = [row for row in batch_rows() if row.role == "b"]
    rows = [replace(row, weights=row.weights * (3 if row.rollout == "r2" else 1)) for row in rows]
    pairs = (Pair("b", "r0", "r1"), Pair("b", "r2", "r1"))
    references: dict[Any, Tensor] = {}

    def whole(model: torch.nn.Module) -> Tensor:
        gain, total = {}, torch.zeros(())
        for key, s in sequences(rows, model).items():
            gain[key[0]] = (s.lp - references.setdefault(key, s.lp.detach())).sum()
        for pair, weight in zip(pairs, (0.05, 0.1), strict=True):
            margin = gain[pair.chosen] - gain[pair.rejected]
            total = total - weight * torch.nn.functional.logsigmoid(0.2 * margin)
        return total

    changes: dict[str, Any] = {
        "stored__method": "dpo",
        "stored__beta": 0.2,
        "algorithm__epochs": 3,
        "optimizer__learning_rate": RATE,
    }
    found = gradients(rows, objective=Objective.DPO, pairs=pairs, optimizer__micro_batch_tokens=1, **changes)
    assert_close(descend(whole, 3), found)


def test_dpo_prefers_what_was_chosen_and_says_so() -> None:
    """Its loss begins at log 2 and falls, accuracy and margin rise."""
    learner = make_learner(stored__method="dpo", optimizer__learning_rate=0.02, steps=10)
    rows = [replace(row, weights=(row.weights != 0).astype("f4")) for row in batch_rows() if row.role == "b"]
    batch = Batch(1, rows, Objective.DPO, (Pair("b", "r0", "r1"),))
    first, *_, last = [learner.update(batch).metrics for _ in range(6)]
    assert first["loss"] == pytest.approx(math.log(2)) and first["dpo_accuracy"] == first["dpo_margin"] == 0
    assert last["loss"] < 0.6 and last["dpo_accuracy"] == 1 and last["dpo_margin"] > 0.1
    assert last["trained_tokens"] == 12, "the third rollout is in no pair"


def test_loss_of_pairs_is_the_sum_over_them_whatever_their_lengths() -> None:
    """At the start log 2 for each, by the weight of its tokens: 0.5 and 0.2 here."""
    sizes, weighed = {"r0": 3, "r1": 7, "r2": 5, "r3": 2}, {"r0": 0.5, "r1": 0.5, "r2": 0.2, "r3": 0.2}
    rows = [
        Drawn(rollout, "a", list(range(10)), list(range(1, 1 + size)), size).row(weighed[rollout])
        for rollout, size in sizes.items()
    ]
    batch = Batch(1, rows, Objective.DPO, (Pair("a", "r0", "r1"), Pair("a", "r2", "r3")))
    metrics = make_learner(stored__method="dpo").update(batch).metrics
    assert metrics["loss"] == pytest.approx(0.7 * math.log(2))


def test_pair_without_its_tokens_is_refused() -> None:
    """By role and rollout; and without a reference there is no DPO."""
    pair = (Pair("b", "r0", "r9"),)
    with pytest.raises(LightningError, match="needs role 'b' of rollout 'r9'"):
        make_learner(stored__method="dpo").update(Batch(1, batch_rows(), Objective.DPO, pair))
    with pytest.raises(LightningError, match=r"stored\.method=dpo"):
        make_learner().update(Batch(1, batch_rows(), Objective.DPO, pair))


@pytest.mark.parametrize("rollouts", [4, 5])
def test_mini_batches_are_the_batch_in_expectation(rollouts: int) -> None:
    """With steps of length 0: the gradients of two mini-batches, by their shares of the rollouts, make the batch's."""
    rows = [Drawn(f"r{index}", "a", [1, 2, 3, 4, index], [1, 2, 3, 4], index).row() for index in range(rollouts)]
    (whole,) = gradients(rows, optimizer__learning_rate=1e-30)
    halves = gradients(rows, optimizer__learning_rate=1e-30, algorithm__mini_batches=2)
    sizes = [(rollouts + 1) // 2, rollouts // 2]
    assert len(halves) == 2
    assert_close([whole], [(sizes[0] * halves[0] + sizes[1] * halves[1]) / rollouts])
    assert float((halves[0] - halves[1]).norm()) > 0.1 * float(whole.norm())


def test_more_mini_batches_than_rollouts() -> None:
    """Are as many as there are rollouts."""
    rows = [Drawn(f"r{index}", "a", [1, 2, index], [1, 2], index).row() for index in range(3)]
    assert len(gradients(rows, algorithm__mini_batches=8)) == 3


def test_paired_rollouts_stay_together() -> None:
    """In mini-batches of DPO the two of a pair are never apart: each pair has its own margin."""
    rows = [Drawn(f"r{index}", "a", [1, 2, 3, index], [1, 2, 3], index).row() for index in range(4)]
    pairs = (Pair("a", "r0", "r3"), Pair("a", "r2", "r1"))
    options: dict[str, Any] = {
        "objective": Objective.DPO,
        "pairs": pairs,
        "stored__method": "dpo",
        "optimizer__learning_rate": 1e-30,
    }
    (whole,), halves = gradients(rows, **options), gradients(rows, **options, algorithm__mini_batches=4)
    assert len(halves) == 2
    assert_close([whole], [(halves[0] + halves[1]) / 2])


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({}, False),
        ({"algorithm__entropy": 0.1}, True),
        ({"divergence__coefficient": 0.1, "divergence__estimator": "k1"}, True),
        ({"divergence__coefficient": 0.1, "divergence__place": "reward"}, False),
    ],
)
def test_rows_without_advantage_are_skipped_only_where_that_is_exact(changes: dict[str, Any], moves: bool) -> None:
    """An entropy bonus and a divergence in the loss act on every token."""
    learner, rows = make_learner(**changes), [replace(row, advantages=row.advantages * 0) for row in batch_rows()]
    metrics = learner.update(Batch(1, rows)).metrics
    assert (metrics["trained_tokens"] > 0) is moves and (metrics["grad_norm"] > 0) is moves


def test_metrics_of_each_role_make_the_whole() -> None:
    """entropy, kl_sampler, clip_fraction and kl_reference, by role and in all; a call without role is 'none'."""
    rows = [replace(row, role="" if row.role == "a" else row.role) for row in batch_rows()]
    changes: dict[str, Any] = {"divergence__coefficient": 0.1, "algorithm__epochs": 2, "optimizer__learning_rate": 3.0}
    metrics = make_learner(**changes).update(Batch(1, rows)).metrics
    for name in ("entropy", "kl_sampler", "clip_fraction", "kl_reference"):
        assert metrics[name] == pytest.approx((metrics[f"{name}/none"] + metrics[f"{name}/b"]) / 2)
    assert metrics["kl_sampler/none"] != metrics["kl_sampler/b"] and metrics["clip_fraction"] > 0


@pytest.mark.parametrize(("kind", "name"), [("truncate", "truncated_fraction"), ("mask", "masked_fraction")])
def test_share_of_tokens_beyond_the_importance_bounds_is_told(kind: str, name: str) -> None:
    """Half of the tokens were sampled with a thousandth of the probability that they have now."""
    learner, rows = make_learner(importance__kind=kind, importance__level="sequence"), batch_rows()
    for row in rows:
        at = row.weights != 0
        row.logprobs[at] = learner.logprobs(row)
        row.logprobs[at] -= 7.0 * (row.role == "b")
    metrics = learner.update(Batch(1, rows)).metrics
    assert metrics[name] == pytest.approx(0.5)
