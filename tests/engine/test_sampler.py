"""The sampler against the distributions it claims to draw from."""

import torch

from lightning_embedded.sampler import Knobs, sample


def frequencies(knobs: Knobs, logits: torch.Tensor, draws: int) -> torch.Tensor:
    rows = logits.expand(draws, -1)
    uniforms = ((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).tolist()
    return torch.bincount(sample(rows, knobs, uniforms).ids, minlength=logits.shape[-1]) / draws


def test_frequencies_follow_the_distribution() -> None:
    """Evenly spread random numbers reproduce softmax, with temperature and top-p applied."""
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)) * 2
    draws = 20_000
    plain = frequencies(Knobs([1.0] * draws, [1.0] * draws), logits, draws)
    torch.testing.assert_close(plain, logits[0].softmax(-1), atol=2e-4, rtol=0)
    warm = frequencies(Knobs([0.7] * draws, [1.0] * draws), logits, draws)
    torch.testing.assert_close(warm, (logits[0] / 0.7).softmax(-1), atol=2e-4, rtol=0)
    ordered, order = logits[0].softmax(-1).sort(descending=True)
    size = int((ordered.cumsum(0) < 0.8).sum()) + 1
    expected = torch.zeros(40).scatter(0, order[:size], ordered[:size] / ordered[:size].sum())
    nucleus = frequencies(Knobs([1.0] * draws, [0.8] * draws), logits, draws)
    torch.testing.assert_close(nucleus, expected, atol=2e-4, rtol=0)


def test_the_ends_of_the_interval_are_possible_tokens() -> None:
    """Random numbers next to 0 and 1 never pick a token without probability."""
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf, 0.5, -torch.inf]]).expand(2, -1)
    draw = sample(logits, Knobs([1.0, 1.0], [1.0, 1.0]), [0.0, 1.0 - 2.0**-53])
    assert draw.ids.tolist() == [1, 4]
    assert torch.isfinite(draw.logprobs).all()
