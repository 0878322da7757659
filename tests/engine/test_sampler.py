"""The sampler against the distributions it claims to draw from."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.sampler import Knobs, sample
from lightning_embedded.engine.sequence import Params, Sequence


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


@pytest.mark.parametrize("vocabulary", [4096, 4097, 6400, 6413])
def test_a_large_vocabulary_is_drawn_from_by_blocks(vocabulary: int) -> None:
    """The frequencies are those of softmax, in every block, in the last one that is not full, and for rare tokens."""
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(1))
    logits[0, [0, 63, 64, -2, -1]] = torch.tensor([7.0, 6.0, 8.0, 7.0, 6.5])
    draws = 4000
    found = frequencies(Knobs([1.0] * draws, [1.0] * draws), logits, draws)
    torch.testing.assert_close(found, logits[0].softmax(-1), atol=4e-4, rtol=0)


def test_rare_tokens_are_drawn_by_blocks_too() -> None:
    """A token of probability 1e-9 between two likely ones is the one at its place of the cumulative distribution."""
    logits = torch.full((1, 5000), -torch.inf)
    logits[0, [70, 71, 4999]] = torch.log(torch.tensor([0.5, 1e-9, 0.5]))
    draw = sample(logits.expand(4, -1), Knobs([1.0] * 4, [1.0] * 4), [0.0, 0.5 - 0.5e-9, 0.75, 1 - 2**-53])
    assert draw.ids.tolist() == [70, 71, 4999, 4999]
    torch.testing.assert_close(draw.logprobs, torch.log_softmax(logits[0], -1)[draw.ids])


def test_the_ends_of_the_interval_are_possible_tokens() -> None:
    """Random numbers next to 0 and 1 never pick a token without probability."""
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf, 0.5, -torch.inf]]).expand(2, -1)
    draw = sample(logits, Knobs([1.0, 1.0], [1.0, 1.0]), [0.0, 1.0 - 2.0**-53])
    assert draw.ids.tolist() == [1, 4]
    assert torch.isfinite(draw.logprobs).all()


def test_penalties_change_what_is_drawn_from() -> None:
    """Presence once, frequency for each time, repetition for the prompt too, and the log-prob is what they leave."""
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    params = Params(max_tokens=9, temperature=0.5, presence=0.3, frequency=0.7, repetition=1.5)
    sequence = Sequence([1, 2, 5], params, lambda _: None)
    sequence.token_ids = [5, 7, 7]
    expected = logits[0].clone()
    for seen in (1, 2, 5, 7):
        expected[seen] = expected[seen] / 1.5 if expected[seen] > 0 else expected[seen] * 1.5
    for said, count in ((5, 1), (7, 2)):
        expected[said] -= 0.3 + 0.7 * count
    draw = sample(logits, Knobs([0.5], [1.0], [None], [(0, sequence)]), [0.4])
    distribution = draw.probabilities.log()
    torch.testing.assert_close(distribution[0], torch.log_softmax(expected / 0.5, -1))
    assert draw.logprobs[0] == distribution[0, draw.ids[0]]


def test_penalised_tokens_are_drawn_from_what_their_log_probs_say() -> None:
    """Evenly spread random numbers reproduce the distribution that the penalties leave, computed here by itself."""
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3))
    sequence = Sequence([1, 2, 5], Params(max_tokens=9, presence=0.6, frequency=0.9, repetition=1.8), lambda _: None)
    sequence.token_ids = [5, 7, 7]
    draws = 5000
    knobs = Knobs([0.8] * draws, [1.0] * draws, [None] * draws, [(row, sequence) for row in range(draws)])
    found = frequencies(knobs, logits, draws)
    expected = torch.from_numpy(np.exp(penalise(logits[0].numpy(), sequence, 0.8))).float()
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    "penalties",
    [{"presence": 1.2}, {"frequency": 0.8}, {"repetition": 1.6}, {"frequency": -0.5, "repetition": 0.8}],
    ids=str,
)
def test_the_engine_tells_log_probs_under_penalties(
    engine: Engine, model: LlamaForCausalLM, penalties: dict[str, float]
) -> None:
    """What leaves the engine for each token is the log-prob of the penalised distribution, from the model's logits by
    one plain forward pass, and not that of the model alone."""
    params = Params(max_tokens=20, temperature=0.7, seed=11, **penalties)
    sequences = engine.generate([[5, 6, 7, 5], [9, 9, 4], [60, 61]], params)
    assert sum(len(each.token_ids) for each in sequences) > 20
    free, expected = [], []
    for each in sequences:
        with torch.no_grad():
            logits = model(torch.tensor([each.all_ids()])).logits[0].numpy()
        for place, token in enumerate(each.token_ids):
            before = Sequence(each.prompt, params, lambda _: None)
            before.token_ids = each.token_ids[:place]
            row = logits[len(each.prompt) - 1 + place]
            expected.append(penalise(row, before, 0.7)[token])
            free.append(penalise(row, Sequence([], Params(max_tokens=1), lambda _: None), 0.7)[token])
    said = [logprob for each in sequences for logprob in each.logprobs]
    np.testing.assert_allclose(said, expected, atol=1e-4)
    assert np.abs(np.array(said) - free).max() > 0.05


def penalise(logits: NDArray[np.float32], sequence: Sequence, temperature: float) -> NDArray[np.float64]:
    """Log-probs of the next token, by the definitions and one token at a time."""
    params, said = sequence.params, list(sequence.token_ids)
    values = logits.astype(np.float64)
    for token in range(len(values)):
        if token in said or token in sequence.prompt:
            values[token] *= 1 / params.repetition if values[token] > 0 else params.repetition
        if token in said:
            values[token] -= params.presence + params.frequency * said.count(token)
    values /= temperature
    return np.asarray(values - np.logaddexp.reduce(values))
