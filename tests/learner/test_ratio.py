"""Sums over sequences, and importance weights between sampler and trainer."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_losses.ratio import importance, sequence_mean, sequence_sum

entries = st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 4)), min_size=1, max_size=12)


@given(drawn=entries)
def test_sums_and_means_of_sequences(drawn: list[tuple[float, int]]) -> None:
    """Each entry gets what a dictionary of lists says of its sequence."""
    values, sequence = torch.tensor([value for value, _ in drawn]), torch.tensor([place for _, place in drawn])
    members: dict[int, list[float]] = {}
    for value, place in drawn:
        members.setdefault(place, []).append(value)
    sums = [sum(members[place]) for _, place in drawn]
    means = [sum(members[place]) / len(members[place]) for _, place in drawn]
    assert sequence_sum(values, sequence).tolist() == pytest.approx(sums, abs=1e-5)
    assert sequence_mean(values, sequence).tolist() == pytest.approx(means, abs=1e-5)


@given(drawn=st.lists(st.floats(-4, 4), min_size=1, max_size=8))
@pytest.mark.parametrize("kind", ["truncate", "mask", "off"])
def test_importance_weights(kind: str, drawn: list[float]) -> None:
    """Cut above, or gone outside of both bounds, or 1; and where that happened."""
    found = importance(torch.tensor(drawn, dtype=torch.float64), kind=kind, low=0.5, high=2.0)
    ratios = [math.exp(each) for each in drawn]
    expected = {
        "truncate": [(min(ratio, 2.0), ratio > 2.0) for ratio in ratios],
        "mask": [(ratio, False) if 0.5 <= ratio <= 2.0 else (0.0, True) for ratio in ratios],
        "off": [(1.0, False) for _ in ratios],
    }[kind]
    assert found.weights.tolist() == pytest.approx([weight for weight, _ in expected])
    assert found.outside.tolist() == [outside for _, outside in expected]


@pytest.mark.parametrize("kind", ["truncate", "mask", "off"])
def test_importance_carries_no_gradient(kind: str) -> None:
    """It changes the measure, not the objective."""
    assert not importance(torch.zeros(2, requires_grad=True), kind=kind, low=0.5, high=2.0).weights.requires_grad


@pytest.mark.parametrize("kind", ["truncate", "mask"])
def test_a_ratio_that_is_not_a_number_is_not_hidden(kind: str) -> None:
    """It stays one, so that the step is skipped and said, instead of counting as masked."""
    assert importance(torch.tensor([math.nan]), kind=kind, low=0.5, high=2.0).weights.isnan().all()
