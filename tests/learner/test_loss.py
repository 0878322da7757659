"""The losses of tokens, against their formulas written out by hand and against finite differences."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch import Tensor

from lightning_embedded.learning.value_head import explained_variance, value_loss
from lightning_losses.divergence import divergence
from lightning_losses.loss import Surrogate, cispo, gspo, ppo, sft
from lightning_losses.preference import dpo, dpo_slope
from lightning_losses.ratio import sequence_mean

BOUNDS = {"clip_low": 0.2, "clip_high": 0.28}
LOW, HIGH = 0.8, 1.28

logprobs = st.floats(-6, -0.01)
numbers = st.floats(-3, 3).filter(lambda value: abs(value) > 0.05)
Tokens = list[tuple[float, float, float]]
tokens = st.lists(st.tuples(logprobs, logprobs, numbers), min_size=1, max_size=6)
"""Log-probability, the old one, and advantage."""


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def columns(drawn: Sequence[tuple[float, ...]]) -> list[Tensor]:
    return [tensor(*column) for column in zip(*drawn, strict=True)]


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> list[float]:
    """By autograd, of the sum."""
    leaf = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return found.tolist()


def slopes(loss: Callable[[list[float]], float], at: list[float], step: float = 1e-6) -> list[float]:
    """By central differences."""
    found = []
    for place in range(len(at)):
        up, down = ([*at[:place], at[place] + by, *at[place + 1 :]] for by in (step, -step))
        found.append((loss(up) - loss(down)) / (2 * step))
    return found


def clipped_by_hand(ratio: float, advantage: float, dual: float) -> float:
    """The loss of one token or sequence, as the papers print it (their objective, negated)."""
    inner = min(ratio * advantage, min(max(ratio, LOW), HIGH) * advantage)
    if dual and advantage < 0:
        inner = max(inner, dual * advantage)
    return -inner


def away_from_kinks(ratios: Sequence[float], dual: float) -> bool:
    return all(abs(ratio - bound) > 1e-3 for ratio in ratios for bound in (LOW, HIGH, dual))


@pytest.mark.parametrize("dual", [0.0, 3.0])
@given(drawn=tokens)
def test_ppo_is_the_clipped_objective_with_both_bounds(dual: float, drawn: Tokens) -> None:
    """Value and gradient of each token, with and without a dual clip."""
    lp, old, advantages = columns(drawn)
    assume(away_from_kinks((lp - old).exp().tolist(), dual))

    def by_hand(at: list[float]) -> list[float]:
        return [clipped_by_hand(math.exp(new - o), a, dual) for new, (_, o, a) in zip(at, drawn, strict=True)]

    assert ppo(lp, old, advantages, **BOUNDS, clip_dual=dual).loss.tolist() == pytest.approx(by_hand(lp.tolist()))
    found = gradient(lambda at: ppo(at, old, advantages, **BOUNDS, clip_dual=dual).loss, lp)
    assert found == pytest.approx(slopes(lambda at: sum(by_hand(at)), lp.tolist()), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dual", [0.0, 3.0])
@given(drawn=tokens, advantage=numbers)
def test_gspo_is_the_objective_of_the_sequences_ratio(dual: float, drawn: Tokens, advantage: float) -> None:
    """Its token form has the value and the gradient of the sequence's objective, which is what finite differences see:
    n times the loss of exp(mean of log-ratios), for a sequence of n tokens with one advantage."""
    lp, old, _ = columns(drawn)
    advantages, sequence = torch.full_like(lp, advantage), torch.zeros(len(lp), dtype=torch.int64)
    assume(away_from_kinks([float((lp - old).mean().exp())], dual))

    def by_hand(at: list[float]) -> float:
        drift = sum(new - o for new, (_, o, _) in zip(at, drawn, strict=True)) / len(at)
        return len(at) * clipped_by_hand(math.exp(drift), advantage, dual)

    def ours(at: Tensor) -> Tensor:
        return gspo(at, sequence_mean(at - old, sequence), advantages, **BOUNDS, clip_dual=dual).loss

    assert float(ours(lp).sum()) == pytest.approx(by_hand(lp.tolist()))
    assert gradient(ours, lp) == pytest.approx(slopes(by_hand, lp.tolist()), rel=1e-4, abs=1e-6)


@given(drawn=tokens)
def test_cispo_weighs_log_probabilities_with_clipped_ratios(drawn: Tokens) -> None:
    """The gradient of every token is -clip(r) A, clipped or not: the weight itself is held fixed."""
    lp, old, advantages = columns(drawn)
    held = [min(max(math.exp(new - o), LOW), HIGH) for new, o, _ in drawn]

    def by_hand(at: list[float]) -> list[float]:
        return [-weight * a * new for weight, new, (_, _, a) in zip(held, at, drawn, strict=True)]

    found = cispo(lp, old, advantages, **BOUNDS)
    assert found.loss.tolist() == pytest.approx(by_hand(lp.tolist()))
    assert found.clipped.tolist() == [not LOW <= math.exp(new - o) <= HIGH for new, o, _ in drawn]
    slope = slopes(lambda at: sum(by_hand(at)), lp.tolist())
    assert gradient(lambda at: cispo(at, old, advantages, **BOUNDS).loss, lp) == pytest.approx(
        slope, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize(
    ("step", "advantage", "clipped"),
    [
        (math.log(1.27), 1.0, False),
        (math.log(1.29), 1.0, True),
        (math.log(0.5), 1.0, False),
        (math.log(0.79), -1.0, True),
        (math.log(0.81), -1.0, False),
        (math.log(1.5), -1.0, False),
        (math.log(3.1), -1.0, True),
        (math.log(2.9), -1.0, False),
    ],
)
@pytest.mark.parametrize("loss", [ppo, gspo])
def test_clipped_tokens_have_no_gradient_and_are_counted(
    loss: Callable[..., Surrogate], step: float, advantage: float, clipped: bool
) -> None:
    """Beyond a bound in the direction of the advantage, and beyond the dual bound against it, exactly 0."""
    old = tensor(-2.0)
    # For one token the mean log-ratio of its sequence is its own.
    second = old if loss is ppo else tensor(step)

    def ours(at: Tensor) -> Surrogate:
        return loss(at, second, tensor(advantage), **BOUNDS, clip_dual=3.0)

    assert ours(old + step).clipped.tolist() == [clipped]
    expected = 0.0 if clipped else -math.exp(step) * advantage
    assert gradient(lambda at: ours(at).loss, old + step) == pytest.approx([expected])


@pytest.mark.parametrize("loss", [ppo, cispo, gspo])
def test_log_ratios_that_would_overflow_stay_finite(loss: Callable[..., Surrogate]) -> None:
    """A token that the old policy all but ruled out."""
    lp, far = torch.tensor([-1.0, -1.0]), torch.tensor([-300.0, 300.0])
    found = loss(lp.requires_grad_(), far, torch.tensor([-1.0, -1.0]), **BOUNDS)
    (grad,) = torch.autograd.grad(found.loss.sum(), lp)
    assert found.loss.isfinite().all() and grad.isfinite().all()


@given(drawn=st.lists(st.tuples(logprobs, logprobs), min_size=1, max_size=6))
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_divergences_are_schulmans_estimators(estimator: str, drawn: list[tuple[float, float]]) -> None:
    """Value and gradient, k3 bounded by 10."""

    def by_hand(at: list[float]) -> list[float]:
        differences = [ref - new for new, (_, ref) in zip(at, drawn, strict=True)]
        formula: dict[str, Callable[[float], float]] = {
            "k1": lambda d: -d,
            "k2": lambda d: d * d / 2,
            "k3": lambda d: min(10.0, math.exp(d) - 1 - d),
        }
        return [formula[estimator](each) for each in differences]

    lp, reference = columns(drawn)
    assume(all(abs(math.exp(d) - 1 - d - 10) > 1e-3 for d in (reference - lp).tolist()))
    assert divergence(lp, reference, estimator).tolist() == pytest.approx(by_hand(lp.tolist()), abs=1e-9)
    found = gradient(lambda at: divergence(at, reference, estimator), lp)
    assert found == pytest.approx(slopes(lambda at: sum(by_hand(at)), lp.tolist()), rel=1e-4, abs=1e-6)


def test_k1_and_k3_are_the_divergence_in_expectation_and_k2_has_its_gradient() -> None:
    """By exact sums over a distribution: what the docstring says of each estimator."""
    torch.manual_seed(0)
    logits, reference = torch.randn(6, dtype=torch.float64), torch.randn(6, dtype=torch.float64).log_softmax(-1)
    leaf = logits.clone().requires_grad_()
    policy = leaf.log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum()
    (true,) = torch.autograd.grad(exact, leaf, retain_graph=True)
    for estimator, unbiased, right in (("k1", True, False), ("k2", False, True), ("k3", True, False)):
        estimates = divergence(policy, reference, estimator)
        sampled = (policy.exp().detach() * estimates).sum()
        assert (abs(float((sampled - exact).detach())) < 1e-9) is unbiased
        (found,) = torch.autograd.grad(sampled, leaf, retain_graph=True)
        assert bool(torch.allclose(found, true)) is right


@given(drawn=st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6))
@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_value_loss_is_the_larger_of_two_errors(clip: float, drawn: list[tuple[float, float, float]]) -> None:
    """Half the square of the free error and of the error within the clip; clip 0: the free one."""

    def by_hand(at: list[float]) -> list[float]:
        found = []
        for value, (_, earned, old) in zip(at, drawn, strict=True):
            near = min(max(value, old - clip), old + clip) if clip else value
            found.append(max((value - earned) ** 2, (near - earned) ** 2) / 2)
        return found

    values, returns, old = columns(drawn)
    free, near = (values - returns) ** 2, (torch.clamp(values, old - clip, old + clip) - returns) ** 2
    assume(not clip or bool(((values - old).abs() - clip).abs().min() > 1e-3))
    assume(not clip or bool(((free - near).abs() > 1e-3).logical_or((values - old).abs() < clip).all()))
    assert value_loss(values, returns, old, clip).tolist() == pytest.approx(by_hand(values.tolist()))
    found = gradient(lambda at: value_loss(at, returns, old, clip), values)
    assert found == pytest.approx(slopes(lambda at: sum(by_hand(at)), values.tolist()), rel=1e-4, abs=1e-6)


def test_explained_variance() -> None:
    """1 for the returns themselves, 0 for their mean, less for worse; none where nothing varies."""
    returns = tensor(1, 2, 3)
    assert explained_variance(returns, returns) == 1
    assert explained_variance(tensor(2, 2, 2), returns) == pytest.approx(0)
    assert explained_variance(tensor(3, 2, 1), returns) == pytest.approx(-3)
    assert explained_variance(returns, tensor(2, 2, 2)) is None


@budget(deadline=None)
@given(margin=st.floats(-30, 30), beta=st.floats(0.01, 1))
def test_dpo_and_its_slope(margin: float, beta: float) -> None:
    """-log sigmoid(beta m), and its derivative by finite differences."""
    at = tensor(margin)
    assert float(dpo(at, beta)) == pytest.approx(math.log1p(math.exp(-beta * margin)))
    (slope,) = slopes(lambda m: math.log1p(math.exp(-beta * m[0])), [margin])
    assert float(dpo_slope(at, beta)) == pytest.approx(slope, rel=1e-3, abs=1e-8)


def test_sft_is_the_negative_log_likelihood() -> None:
    """The loss of each token is its negative log-prob."""
    assert sft(tensor(-1.5, -0.5)).tolist() == [1.5, 0.5]
    assert gradient(sft, tensor(-1.5, -0.5)) == [-1.0, -1.0]
