"""The tokenizer: byte-level BPE with single digits, and few tokens for the JSON around a tool call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_spark.chat import template

PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens, ids 0 to 2: engines omit them from decoded replies."""
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<answer>", "</answer>")
"""Added but not special: they are part of replies, where tool-call parsers look for them."""
END_ID = 2

# The largest pieces that BPE may build: a role header, the JSON around a call's name and arguments, one digit, a word
# with its space, an operator with its spaces. With single digits, copying a number is the same task at every length;
# names are split at underscores and from the space before them, so that copying one is the same wherever it stands.
PIECES = (
    r'(?:assistant|user|system|tool)\n|\{"name": "|", "arguments": \{"?|": "|", "|"\}+|\}+'
    r'|\d|_| (?=[A-Za-z_]+\()| ?[A-Za-z]+| ?[^\sA-Za-z_\d"{}<>] ?|["{}]+| ?[<>]=? ?|\s'
)


def train(texts: Iterable[str], size: int = 2048) -> Tokenizer:
    """A tokenizer of `size` entries, learned from rendered dialogues."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(TAGS),
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_without_tags(texts), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, longest: int) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`; `longest` is the context in tokens."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template(), encoding="utf-8")


def _without_tags(texts: Iterable[str]) -> Iterator[str]:
    # Otherwise BPE would waste merges on the letters of tags, which are separate tokens.
    tags = re.compile("|".join(map(re.escape, TAGS)))
    for text in texts:
        yield from tags.split(text)
