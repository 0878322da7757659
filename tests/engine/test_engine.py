"""The engine: what it samples, what it reuses, and what happens to requests on the way."""

import inspect
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lightning_embedded.engine.engine import Engine, EngineClosed, PromptTooLong
from lightning_embedded.engine.sequence import Params, Sequence
from tests.engine.served_engine import assert_logprobs, make_model
from tests.waiting import wait_for


def prompts(count: int, seed: int = 0, low: int = 3, high: int = 40) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high, (count,), generator=generator).tolist()
    return [torch.randint(7, 300, (length,), generator=generator).tolist() for length in lengths]


class Inbox:
    """A receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.done: list[Sequence] = []
        self.calls = 0

    def __call__(self, sequences: list[Sequence]) -> None:
        self.calls += 1
        self.done += [sequence for sequence in sequences if sequence.finish and sequence not in self.done]


def test_logprobs_equal_a_plain_forward_pass(engine: Engine, model: LlamaForCausalLM) -> None:
    """More sequences than slots, of all lengths: log-probs are those of the model on each sequence alone."""
    sequences = engine.generate(prompts(40), Params(max_tokens=20))
    assert_logprobs(model, sequences)
    assert {sequence.finish for sequence in sequences} <= {"stop", "length"}
    assert engine.running == engine.waiting == 0


@pytest.mark.parametrize(
    "config",
    [
        pytest.param((Qwen2ForCausalLM, Qwen2Config(num_key_value_heads=1)), id="qwen2"),
        pytest.param((Qwen3ForCausalLM, Qwen3Config(num_key_value_heads=1, head_dim=32)), id="qwen3"),
        pytest.param((MistralForCausalLM, MistralConfig(num_key_value_heads=2, sliding_window=64)), id="mistral"),
        pytest.param((GPT2LMHeadModel, GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=96)), id="gpt2"),
    ],
)
def test_other_architectures(config: tuple[type, object], tokenizer: PreTrainedTokenizerFast) -> None:
    """Any causal LM with positions works, with rope or learned positions; no sliding window bounds the length."""
    cls, settings = config
    small = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "bos_token_id": 0}
    small |= {"num_attention_heads": 2, "max_position_embeddings": 128, "eos_token_id": 2, "initializer_range": 0.1}
    for name, value in small.items():
        if not (cls is GPT2LMHeadModel and name in ("hidden_size", "intermediate_size", "max_position_embeddings")):
            setattr(settings, name, value)
    torch.manual_seed(0)
    model = cls(settings).eval()
    engine = Engine(model, tokenizer, max_slots=4)
    try:
        first = engine.generate(prompts(6, high=30), Params(max_tokens=8))
        second = engine.generate([[*sequence.all_ids(), 9, 10, 11] for sequence in first], Params(max_tokens=8))
        assert_logprobs(model, first + second)
        assert engine.max_length == (96 if cls is GPT2LMHeadModel else 128)
    finally:
        engine.close()


class OwnCode(GPT2LMHeadModel):
    """As code that comes with a model: the cache has its old name, and there are no **kwargs to pass others in."""

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> Any:
        name = {"cache", "past_key_values"} & inspect.signature(GPT2LMHeadModel.forward).parameters.keys()
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
        return super().forward(input_ids, **given, **{name.pop(): past_key_values})


def test_both_names_of_the_cache(tokenizer: PreTrainedTokenizerFast) -> None:
    """The cache goes in under the name that the model's own `forward` has, which need not be that of transformers."""
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 96, "vocab_size": 320}
    model = OwnCode(GPT2Config(**sizes, bos_token_id=0, eos_token_id=2, initializer_range=0.1)).eval()
    engine = Engine(model, tokenizer, max_slots=4)
    try:
        first = engine.generate(prompts(6, high=30), Params(max_tokens=8))
        assert_logprobs(model, first)
        second = engine.generate([[*sequence.all_ids(), 9, 10, 11] for sequence in first], Params(max_tokens=8))
        assert_logprobs(model, second)
    finally:
        engine.close()


def test_joined_matrices_equal_the_module(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """The quick path of the Llama family and the Hugging Face module sample the same tokens with the same log-probs."""
    quick, plain = (Engine(model, tokenizer, max_slots=8) for _ in range(2))
    assert quick.decoder._llama is not None
    plain.decoder._llama = None
    try:
        for params in (Params(max_tokens=12, temperature=0.0), Params(max_tokens=12, seed=3)):
            for one, other in zip(
                quick.generate(prompts(12), params), plain.generate(prompts(12), params), strict=True
            ):
                assert one.token_ids == other.token_ids
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    finally:
        quick.close()
        plain.close()


def test_sequences_join_and_leave(engine: Engine, model: LlamaForCausalLM) -> None:
    """Sequences that arrive one by one while others run change nothing in anybody's log-probs."""
    inbox = Inbox()
    for place, prompt in enumerate(prompts(30)):
        engine.submit([Sequence(prompt, Params(max_tokens=5 + place % 17), inbox)])
        time.sleep(0.002)
    wait_for(lambda: len(inbox.done) == 30)
    assert_logprobs(model, inbox.done)


def test_a_group_is_computed_once(engine: Engine, model: LlamaForCausalLM) -> None:
    """Eight samples of one prompt cost one prompt, and differ."""
    prompt = prompts(1, low=30)[0]
    sequences = engine.generate([prompt] * 8, Params(max_tokens=10))
    assert engine.stats.computed == len(prompt)
    assert engine.stats.reused == 7 * len(prompt)
    assert len({tuple(sequence.token_ids) for sequence in sequences}) > 1
    assert_logprobs(model, sequences)


def test_the_next_turn_extends_what_is_there(engine: Engine, model: LlamaForCausalLM) -> None:
    """A conversation's next prompt computes only what is new, over several turns and with others in between."""
    known = prompts(12, low=20)
    for _ in range(3):
        sequences = engine.generate(known, Params(max_tokens=9))
        assert_logprobs(model, sequences)
        before = engine.stats.computed
        known = [[*sequence.all_ids(), 20, 21, 22] for sequence in sequences]
    engine.generate(known, Params(max_tokens=1))
    # The last sampled token was never fed, so it is computed with the three new ones.
    assert engine.stats.computed - before == 12 * 4


def test_a_common_beginning_is_copied(engine: Engine, model: LlamaForCausalLM) -> None:
    """A prompt that begins like a finished one starts from its keys and values, and leaves them usable."""
    stem = prompts(1, low=38)[0]
    engine.generate([[*stem, 30]], Params(max_tokens=5))
    before = engine.stats.computed
    sequences = engine.generate([[*stem, 40, 41], [*stem, 50]], Params(max_tokens=5))
    assert engine.stats.computed - before == 3
    assert_logprobs(model, sequences)


def test_publish_changes_every_later_token(
    engine: Engine, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Tokens before a publication are of the old version, all after it exactly of the new one, and are marked so."""
    other = make_model(len(tokenizer), seed=1)
    inbox = Inbox()
    running = [Sequence(prompt, Params(max_tokens=200), inbox) for prompt in prompts(6)]
    engine.submit(running)
    # One that samples its end early is not waited for.
    wait_for(lambda: all(sequence.finish or len(sequence.token_ids) > 5 for sequence in running))
    engine.publish(other.named_parameters(), 7)
    engine.submit([Sequence(prompt, Params(max_tokens=4), inbox) for prompt in prompts(6)])
    wait_for(lambda: len(inbox.done) == 12)
    assert any(len(sequence.versions) == 2 for sequence in running)
    for sequence in inbox.done:
        assert sum(count for _, count in sequence.versions) == len(sequence.token_ids)
        assert [version for version, _ in sequence.versions] in ([0, 7], [0], [7])
        old = dict(map(tuple, sequence.versions)).get(0, 0)
        for weights, part in ((model, slice(0, old)), (other, slice(old, None))):
            with torch.no_grad():
                rows = torch.log_softmax(weights(torch.tensor([sequence.all_ids()])).logits[0], -1)
            exact = rows[len(sequence.prompt) - 1 : -1].gather(1, torch.tensor(sequence.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(sequence.logprobs)[part], exact[part], atol=1e-4, rtol=0)
    assert engine.version == 7


def test_publish_refuses_weights_that_do_not_fit(engine: Engine, model: LlamaForCausalLM) -> None:
    """Missing, misshapen or infinite weights raise, name the tensor, and leave the old ones in service."""
    state = model.state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    for broken, word in (
        ({key: value for key, value in state.items() if key != name}, "missing"),
        ({**state, "extra": torch.zeros(1)}, "extra"),
        ({**state, name: state[name][:-1]}, "shape"),
        ({**state, name: torch.full_like(state[name], torch.nan)}, "finite"),
    ):
        with pytest.raises(ValueError, match=word):
            engine.publish(broken, 1)
    assert engine.version == 0
    assert_logprobs(model, engine.generate(prompts(3), Params(max_tokens=5)))


def test_the_engine_has_its_own_weights(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """A learner may change its module in place: the engine serves what was published last."""
    mine = make_model(len(tokenizer), seed=4)
    engine = Engine(mine, tokenizer, max_slots=2)
    try:
        before = engine.generate(prompts(1), Params(max_tokens=5, temperature=0.0))[0]
        with torch.no_grad():
            for parameter in mine.parameters():
                parameter.add_(1.0)
        after = engine.generate(prompts(1), Params(max_tokens=5, temperature=0.0))[0]
        assert before.token_ids == after.token_ids
        assert before.logprobs == pytest.approx(after.logprobs, abs=1e-5)
    finally:
        engine.close()


def test_a_seed_reproduces_in_any_company(engine: Engine) -> None:
    """The same seed gives the same tokens alone and in a full batch; `index` gives other ones."""
    prompt = prompts(1)[0]
    alone = engine.generate([prompt], Params(max_tokens=15, seed=11))[0].token_ids
    engine.publish(engine.decoder.model.state_dict(), 1)  # forget the cache
    crowd = engine.generate([*prompts(9, seed=5), prompt], Params(max_tokens=15, seed=11))
    assert crowd[-1].token_ids == alone
    assert engine.generate([prompt], Params(max_tokens=15, seed=11, index=1))[0].token_ids != alone


def test_rows_keep_their_own_settings(engine: Engine, model: LlamaForCausalLM) -> None:
    """Greedy, warm and nucleus rows in one batch: each is drawn from, and reports, its own distribution."""
    each = [
        Params(max_tokens=20, temperature=0.0),
        Params(max_tokens=20, temperature=0.5),
        Params(max_tokens=20, top_p=0.6, top_logprobs=5),
        Params(max_tokens=20),
    ]
    greedy, warm, nucleus, plain = engine.generate(prompts(4), each)
    assert_logprobs(model, [greedy, plain])
    assert_logprobs(model, [warm], temperature=0.5)
    with torch.no_grad():
        rows = torch.softmax(model(torch.tensor([nucleus.all_ids()])).logits[0], -1)[len(nucleus.prompt) - 1 : -1]
    for row, token, logprob, top in zip(rows, nucleus.token_ids, nucleus.logprobs, nucleus.tops, strict=True):
        ordered, order = row.sort(descending=True)
        size = int((ordered.cumsum(0) < 0.6).sum()) + 1
        assert token in order[:size]
        assert logprob == pytest.approx(float((row[token] / ordered[:size].sum()).log()), abs=1e-4)
        assert [one[0] for one in top] == order[:5].tolist()
    with torch.no_grad():
        best = model(torch.tensor([greedy.all_ids()])).logits[0].argmax(-1)[len(greedy.prompt) - 1 : -1]
    assert greedy.token_ids == best.tolist()


def test_pause_holds_and_resume_goes_on(engine: Engine) -> None:
    """While paused nothing is sampled, what arrives is kept, and weights can be published."""
    inbox = Inbox()
    running = Sequence(prompts(1)[0], Params(max_tokens=150), inbox)
    engine.submit([running])
    wait_for(lambda: len(running.token_ids) > 3)
    engine.pause()
    time.sleep(0.05)
    count = len(running.token_ids)
    engine.submit([Sequence(prompts(1)[0], Params(max_tokens=3), inbox)])
    engine.publish(engine.decoder.model.state_dict(), 2)
    time.sleep(0.05)
    assert len(running.token_ids) == count and not inbox.done
    engine.resume()
    wait_for(lambda: len(inbox.done) == 2)
    assert running.versions[-1][0] == 2


def test_abort_frees_the_slot(engine: Engine) -> None:
    """An aborted sequence leaves without news, whether it runs or waits, and others take its place."""
    inbox = Inbox()
    gone = [Sequence(prompt, Params(max_tokens=200), inbox) for prompt in prompts(20)]
    engine.submit(gone)
    wait_for(lambda: engine.running == 16)
    engine.abort(gone)
    wait_for(lambda: engine.running == 0 and engine.waiting == 0)
    engine.generate(prompts(3), Params(max_tokens=3))
    assert any(sequence.finish == "abort" for sequence in gone)
    assert all(sequence.finish != "abort" for sequence in inbox.done)


def test_one_call_per_step_to_each_receiver(engine: Engine) -> None:
    """Streams of one receiver share a call per step; sequences that are not streamed are heard of once."""
    streams, whole = Inbox(), Inbox()
    engine.pause()
    engine.submit([Sequence(prompt, Params(max_tokens=10), streams, stream=True) for prompt in prompts(5)])
    engine.submit([Sequence(prompts(1)[0], Params(max_tokens=10), whole)])
    engine.resume()
    wait_for(lambda: len(streams.done) == 5 and len(whole.done) == 1)
    assert streams.calls <= 10
    assert whole.calls == 1


def test_lengths_are_bounded(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """A prompt that leaves no room is refused, one that leaves some is cut there, and the cache keeps its bound."""
    engine = Engine(model, tokenizer, max_slots=64, max_length=32, max_cache_bytes=32 * 2 * 2 * 32 * 4 * 6)
    try:
        assert engine.max_slots == 5
        with pytest.raises(PromptTooLong, match="32 tokens; this model takes at most 32"):
            engine.check([5] * 32)
        with pytest.raises(ValueError, match="outside 0 to"):
            engine.check([5, 10**6])
        with pytest.raises(ValueError, match="empty"):
            engine.check([])
        for sequence in engine.generate([[5] * 30, [6] * 31, *prompts(9, high=20)], Params(max_tokens=500)):
            assert sequence.finish == "stop" or len(sequence.all_ids()) == 32
        assert engine.max_length == 32
    finally:
        engine.close()
    with pytest.raises(ValueError, match="lower max_length or raise max_cache_bytes"):
        Engine(model, tokenizer, max_cache_bytes=1000)


def test_close_tells_waiting_callers(engine: Engine) -> None:
    """Closing ends what runs with 'error', refuses what comes, and can be done twice."""
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            engine.generate(prompts(30), Params(max_tokens=200))
        except EngineClosed as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: engine.running > 0)
    engine.close()
    engine.close()
    thread.join(60)
    assert len(errors) == 1
    with pytest.raises(EngineClosed):
        engine.submit([Sequence([5], Params(max_tokens=1), Inbox())])
    with pytest.raises(EngineClosed):
        engine.publish({}, 1)


def test_stop_strings(engine: Engine) -> None:
    """A stop string ends the sequence at the token that completes it, even across tokens; ids stay as sampled."""
    params = Params(max_tokens=30, temperature=0.0)
    free = engine.generate(prompts(6), params)
    for sequence in free:
        text = engine.decode.body(sequence.token_ids)
        spots = [at for at, (a, b) in enumerate(pairwise(text)) if "\ufffd" not in (a, b)]
        if not spots:
            continue
        stop = text[spots[len(spots) // 2] :][:2]
        stopped = engine.generate([sequence.prompt], Params(max_tokens=30, temperature=0.0, stop=(stop,)))[0]
        assert stopped.token_ids == sequence.token_ids[: len(stopped.token_ids)]
        assert stop in engine.decode(stopped.token_ids)
        assert stop not in engine.decode(stopped.token_ids[:-1])
