"""The gradient is that of the rollouts, whatever rows they come as: properties of every loss, on a real model."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from lightning_hub.backend import Batch, Objective, Pair, Row
from lightning_process.transport import pack_batch
from tests.learner.gradients import Drawn, assert_close, cut, gradients, make_learner, parts

#: Every loss with both levels of importance, and what else adds to the gradient.
ALGORITHMS: dict[str, dict[str, Any]] = {
    f"{loss} {kind} {level}": {
        "algorithm__loss": loss,
        "algorithm__clip_dual": 0.0 if loss == "cispo" else 3.0,
        "importance__kind": kind,
        "importance__level": level,
        "importance__low": 0.2,
        "importance__high": 4.0,
        "algorithm__entropy": 0.01,
        "divergence__coefficient": 0.1,
        "divergence__estimator": {"ppo": "k3", "gspo": "k2", "cispo": "k1"}[loss],
    }
    for loss in ("ppo", "gspo", "cispo")
    for kind, level in (("truncate", "token"), ("mask", "sequence"))
}
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())
few = budget(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@every_algorithm
@few
@given(drawn=parts(), data=st.data())
def test_neither_rows_nor_their_order_nor_their_layout_matter(
    algorithm: dict[str, Any], drawn: list[Drawn], data: st.DataObject
) -> None:
    """One row or many, shuffled, shared or padded, with any micro-batches: each of four steps has the same gradient.

    The later steps see ratios that are not 1, over sequences that lie in several micro-batches.
    """
    whole = [part.row() for part in drawn]
    many: list[Row] = []
    for row in whole:
        place = data.draw(st.integers(0, len(row.tokens)))
        many += cut(row, place)
    many = data.draw(st.permutations(many))
    changes: dict[str, Any] = {"algorithm__epochs": 2, "algorithm__mini_batches": 2, **algorithm}
    other: dict[str, Any] = {
        "share": data.draw(st.booleans()),
        "optimizer__micro_batch_tokens": data.draw(st.sampled_from([1, 7, 20, 10_000])),
    }
    expected, found = gradients(whole, **changes), gradients(many, **changes, **other)
    assert len(expected) == 4
    assert_close(expected, found)


@few
@given(drawn=parts(roles=("a",)), data=st.data())
def test_pairs_may_lie_anywhere(drawn: list[Drawn], data: st.DataObject) -> None:
    """Likewise for DPO, whose loss joins two rollouts: over two epochs, so that margins are not 0."""
    whole, pairs = [part.row() for part in drawn[:2]], (Pair("a", "r0", "r1"),)
    many = [piece for row in whole for piece in cut(row, data.draw(st.integers(0, len(row.tokens))))]
    changes: dict[str, Any] = {
        "algorithm__epochs": 2,
        "stored__method": "dpo",
        "objective": Objective.DPO,
        "pairs": pairs,
    }
    other: dict[str, Any] = {
        "share": data.draw(st.booleans()),
        "optimizer__micro_batch_tokens": data.draw(st.sampled_from([1, 7, 10_000])),
    }
    expected = gradients(whole, **changes)
    assert len(expected) == 2
    assert_close(expected, gradients(data.draw(st.permutations(many)), **changes, **other))


@every_algorithm
@few
@given(drawn=parts(), data=st.data())
def test_rows_of_weight_zero_change_no_bit(algorithm: dict[str, Any], drawn: list[Drawn], data: st.DataObject) -> None:
    """Padding rows, with numbers that would ruin everything if they counted."""
    rows = [part.row() for part in drawn]
    padding = [replace(each, weights=each.weights * 0, advantages=each.advantages + np.float32("nan")) for each in rows]
    mixed = data.draw(st.permutations([*rows, *padding]))
    order = [row for row in mixed if row.weights.any()]
    changes: dict[str, Any] = {"algorithm__epochs": 2, **algorithm}
    for one, other in zip(gradients(order, **changes), gradients(mixed, **changes), strict=True):
        assert torch.equal(one, other)


@every_algorithm
@few
@given(drawn=parts(), data=st.data())
def test_masked_tokens_have_a_gradient_of_exactly_zero(
    algorithm: dict[str, Any], drawn: list[Drawn], data: st.DataObject
) -> None:
    """What is written beside a token of weight 0 changes no bit, be it no number; nor does a token behind the last that
    counts."""
    plain, masked = [], []
    for part in drawn:
        row, hidden = part.row(), data.draw(st.sets(st.sampled_from(part.sampled), max_size=len(part.sampled) - 1))
        row.weights[list(hidden)] = 0
        plain.append(row)
        tail, away = data.draw(st.lists(st.integers(0, 3), max_size=3)), row.weights == 0
        longer = {
            name: np.concatenate([np.where(away, np.float32("nan"), getattr(row, name)), np.full(len(tail), np.nan)])
            for name in ("advantages", "logprobs")
        }
        numbers: dict[str, Any] = {name: array.astype(np.float32) for name, array in longer.items()}
        tokens = np.concatenate([row.tokens, np.array(tail, np.int32)])
        masked.append(replace(row, tokens=tokens, weights=np.pad(row.weights, (0, len(tail))), **numbers))
    changes: dict[str, Any] = {"algorithm__epochs": 2, **algorithm}
    for one, other in zip(gradients(plain, **changes), gradients(masked, **changes), strict=True):
        assert one.isfinite().all() and torch.equal(one, other)


@every_algorithm
@few
@given(drawn=parts(), data=st.data())
def test_a_roles_gradient_does_not_depend_on_another_roles_text(
    algorithm: dict[str, Any], drawn: list[Drawn], data: st.DataObject
) -> None:
    """The gradient is the sum of the roles' own, and role a's is the same beside any words of role b's."""
    own = [part.row() for part in drawn if part.role == "a"]
    others = [part for part in drawn if part.role == "b"]
    changed = [
        replace(part, tokens=data.draw(st.lists(st.integers(0, 200), min_size=len(part.tokens), max_size=12)))
        for part in others
    ]
    (alone,) = gradients(own, **algorithm)
    for beside in ([part.row() for part in others], [part.row() for part in changed]):
        (both,), (theirs,) = gradients([*own, *beside], **algorithm), gradients(beside, **algorithm)
        assert_close([both], [alone + theirs])
        silenced = [replace(row, weights=row.weights * 0) for row in beside]
        assert torch.equal(gradients([*own, *silenced], **algorithm)[0], alone)


PROCESS = """
import sys, numpy as np, torch
from tests.learner.gradients import gradients
from tests.learner.test_invariance import ALGORITHMS
from lightning_process.transport import unpack_batch
torch.set_num_threads(1)
batch = unpack_batch(open(sys.argv[1], "rb").read())
found = {name: gradients(batch.rows, **algorithm)[0].numpy() for name, algorithm in ALGORITHMS.items()}
np.savez(sys.argv[2], **found)
"""


def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Each computes half of the rollouts, each by itself; the sum is what one process makes of all, for every loss."""
    drawn = [
        Drawn(f"r{rollout}", role, [rollout % 3, *range(10)], [2, 3, 4, 7, 8], 10 * rollout + len(role))
        for rollout in range(4)
        for role in ("a", "bb")
    ]
    rows = [piece for part in drawn for piece in cut(part.row(), 5)]
    children, root = [], str(Path(__file__).parents[2])
    for half in (0, 1):
        batch, out = tmp_path / f"batch{half}", tmp_path / f"gradient{half}.npz"
        batch.write_bytes(pack_batch(Batch(1, [row for row in rows if int(row.rollout[1:]) // 2 == half])))
        command = [sys.executable, "-c", PROCESS, str(batch), str(out)]
        children.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root}))
    assert [child.wait() for child in children] == [0, 0]
    halves = [np.load(tmp_path / f"gradient{half}.npz") for half in (0, 1)]
    for name, algorithm in ALGORITHMS.items():
        (whole,) = gradients(rows, **algorithm)
        assert_close([whole], [torch.from_numpy(halves[0][name] + halves[1][name])])
        assert float(torch.from_numpy(halves[0][name]).norm()) > 0


def test_another_epoch_really_sees_other_ratios() -> None:
    """Otherwise these properties would say nothing of clipping and drift."""
    rows = [Drawn(f"r{index}", "a", [0, 1, 2, 3, index], [1, 2, 3, 4], index).row() for index in range(3)]
    for loss in ("ppo", "gspo", "cispo"):
        learner = make_learner(algorithm__loss=loss, algorithm__epochs=3, optimizer__learning_rate=3.0)
        first, *later = gradients(rows, learner=learner)
        assert all(float((each - first).norm()) > 1e-3 * float(first.norm()) for each in later)
