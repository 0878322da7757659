"""Batches and scores on the way between the hub and the learner's process."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_hub.backend import Batch, Constrained, Objective, Pair, Row
from lightning_process.transport import (
    pack_batch,
    pack_question,
    pack_scores,
    unpack_batch,
    unpack_question,
    unpack_scores,
)
from tests.learner.tinymodel import make_group_rows


def some_rows() -> list[Row]:
    """With and without what the value head needs, with a number that is none, and with one constraint or two."""
    rows = make_group_rows(groups=1)
    rows[0].logprobs[2] = np.nan
    numbers = np.arange(len(rows[1].tokens), dtype=np.float32)
    limits = (Constrained(2, 3, "one"), Constrained(3, 4, "two"))
    more = replace(rows[1], returns=numbers, values=-numbers, role="", rollout="é", version=-1, constraints=limits)
    return [replace(rows[0], constraints=(Constrained(2, 4, "two"),)), more]


def assert_same(left: Row, right: Row) -> None:
    for name in Row.__dataclass_fields__:
        one, other = getattr(left, name), getattr(right, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype != np.int32), name
        else:
            assert one == other and type(one) is type(other), name


def test_batch_arrives_as_it_was_sent() -> None:
    """Every field of every row, the objective and the pairs."""
    batch = Batch(7, some_rows(), Objective.DPO, (Pair("a", "r1", "r2"), Pair("", "r3", "r4")))
    found = unpack_batch(pack_batch(batch))
    assert (found.step, found.objective, found.pairs) == (7, Objective.DPO, batch.pairs)
    for one, other in zip(batch.rows, found.rows, strict=True):
        assert_same(one, other)


def test_question_and_answer_arrive_as_they_were_sent() -> None:
    """Rows to be scored, and an array for each."""
    rows, what = unpack_question(pack_question(some_rows(), "values"))
    assert what == "values" and len(rows) == 2
    assert_same(rows[1], some_rows()[1])
    scores = [np.array([0.0, -1.5], np.float32), np.zeros(0, np.float32)]
    for one, other in zip(scores, unpack_scores(pack_scores(scores)), strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x93\x01\x02\x03", pack_question(some_rows(), "values")])
def test_anything_else_is_not_a_batch(data: bytes) -> None:
    """A ValueError, whatever came."""
    with pytest.raises(ValueError, match="not a batch"):
        unpack_batch(data)


def test_an_unknown_objective_is_refused() -> None:
    """By its name."""
    data = pack_batch(Batch(1, [])).replace(b"policy", b"polish")
    with pytest.raises(ValueError, match=r"not a batch: .*polish"):
        unpack_batch(data)
