"""The tokenizer: which tokens are special, what a call costs, and that nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from lightning_spark import folder
from lightning_spark.tokenizer import SPECIAL, TAGS, train

SHIPPED = Tokenizer.from_file(str(folder() / "tokenizer.json"))


def test_engines_keep_the_tags(tokenizer: PreTrainedTokenizerBase) -> None:
    """Engines decode without special tokens, and tool-call parsers look for the tags in what is left."""
    text = "<tool_call>{}</tool_call><tool_response>5</tool_response><answer>5</answer>"
    assert tokenizer.decode(tokenizer(text + "<|im_end|>")["input_ids"], skip_special_tokens=True) == text
    assert set(tokenizer.all_special_tokens) <= set(SPECIAL)
    assert [SHIPPED.token_to_id(token) for token in SPECIAL] == [0, 1, 2]
    assert all(len(SHIPPED.encode(tag).ids) == 1 for tag in TAGS)


def test_transformers_keeps_the_pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """For some model types AutoTokenizer puts its own pre-tokenizer in, and ids change silently."""
    text = '<|im_start|>user\nCalculate ( -41 + 7 ) * 3.<|im_end|>\n<tool_call>{"name": "calculator", "arguments": {'
    assert tokenizer(text)["input_ids"] == SHIPPED.encode(text).ids


def test_a_call_is_a_few_tokens_and_digits_stand_alone() -> None:
    """Few tokens make short rollouts; single digits make copying a number the same at every length."""
    call = '<tool_call>{"name": "calculator", "arguments": {"expression": "123 - -45"}}</tool_call>'
    tokens = SHIPPED.encode(call).tokens
    assert tokens[6:-2] == ["1", "2", "3", "Ġ-Ġ", "-", "4", "5"]
    assert [tokens[2], tokens[4]] == ["calculator", "expression"], "names are copied from the signature piece by piece"


@given(st.text())
def test_any_text_survives(text: str) -> None:
    """Bytes are the alphabet, so decoding gives back what was encoded."""
    assert SHIPPED.decode(SHIPPED.encode(text).ids, skip_special_tokens=False) == text


def test_training_gives_the_size_asked_for() -> None:
    """Tags count towards the vocabulary and come last."""
    made = train(["<|im_start|>user\nCalculate 12 + 30, then sum again.<|im_end|>\n"] * 3, size=280)
    assert made.get_vocab_size() == 280
    assert [made.token_to_id(tag) for tag in TAGS] == list(range(274, 280))
