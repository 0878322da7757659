"""The fingerprint of a tokenizer, which tells whether two models mean the same by a token id."""

from __future__ import annotations

import hashlib
import json

from transformers import PreTrainedTokenizerBase


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hex digits that identify the vocabulary: every token with its id, including added ones. How text is split into
    tokens and how files are laid out does not matter, because stored ids are never computed again."""
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(json.dumps(vocabulary).encode(), digest_size=16).hexdigest()
