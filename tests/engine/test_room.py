"""Room in the cache: many short conversations at once, or a few long ones, and never another token for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.engine.room import Room
from lightning_embedded.engine.sequence import Params, Sequence
from tests.engine.served_engine import assert_logprobs
from tests.engine.test_engine import prompts
from tests.waiting import wait_for

#: Tokens in the cache: seven rows of 32, but only two of 80 and one of 128.
TOKENS = 256


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=320, num_key_value_heads=1, initializer_range=0.1)
    config.max_position_embeddings = 128
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def make(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Callable[[int], Engine]]:
    """Makes an engine whose cache holds this many tokens."""
    made: list[Engine] = []

    def make(tokens: int) -> Engine:
        made.append(Engine(model, tokenizer, max_slots=7, max_cache_bytes=tokens * 2 * 2 * 16 * 4))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_short_conversations_do_not_pay_for_a_long_context(make: Callable[[int], Engine]) -> None:
    """The cache has one row for the whole context, and runs seven conversations that are short."""
    engine = make(TOKENS)
    assert (engine.max_length, engine.max_slots) == (128, 1)
    engine.pause()
    sequences = [Sequence(prompt, Params(max_tokens=8), lambda _: None) for prompt in prompts(7, high=20)]
    engine.submit(sequences)
    engine.resume()
    wait_for(lambda: all(sequence.finish for sequence in sequences))
    assert engine.stats.steps <= 7  # together: in turn it would be 49


def test_a_conversation_that_grows_gets_its_room(make: Callable[[int], Engine], model: LlamaForCausalLM) -> None:
    """Rows become longer, sequences lose theirs and are computed again, and every token is that of a large cache."""
    small, large = make(TOKENS), make(100_000)
    params = [Params(max_tokens=110 if index == 2 else 40, seed=index) for index in range(9)]
    asked = prompts(9, seed=3, high=16)
    found = small.generate(asked, params)
    assert [sequence.token_ids for sequence in found] == [
        sequence.token_ids for sequence in large.generate(asked, params)
    ]
    assert len(found[2].token_ids) == 110
    assert_logprobs(model, found)


def test_a_long_prompt_gets_its_room(make: Callable[[int], Engine], model: LlamaForCausalLM) -> None:
    """Beside short ones that run, at once and not only when they are done; afterwards as many as before run again."""
    engine = make(TOKENS)
    asked = [*prompts(6, high=20), list(range(7, 107)), *prompts(6, seed=1, high=20)]
    assert_logprobs(model, engine.generate(asked, Params(max_tokens=9)))
    before = engine.stats.steps
    engine.generate(prompts(14, seed=5, high=20), Params(max_tokens=9))
    assert engine.stats.steps - before <= 24  # two rounds of seven, and some that join late: in turn it would be 112
    assert_logprobs(model, engine.generate(asked, Params(max_tokens=9)))


@pytest.mark.parametrize("tokens", [16, 100, 5000])
@pytest.mark.parametrize("slots", [1, 7, 64])
def test_rows_and_their_waste_stay_within_the_limit(tokens: int, slots: int) -> None:
    """Whatever length is asked for, it fits, it is given, and more rows than slots are never made."""
    room = Room(tokens, slots, length=min(tokens // 2, 1000))
    for needed in (1, 3, room.base, (room.base + room.length) // 2, room.length):
        length = room.fit(needed)
        assert needed <= length <= room.length
        assert 1 <= room.rows(length) <= slots
        assert (room.rows(length) + 1) * length <= tokens
