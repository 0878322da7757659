"""The fingerprint of a tokenizer: what tells whether two models mean the same by a token id."""

from __future__ import annotations

import hashlib
import json

from transformers import PreTrainedTokenizerBase


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """32 hex digits, of the vocabulary: every token with its id, added ones too. How text is cut into tokens, and how
    files are laid out, do not matter: stored ids are never made anew."""
    vocabulary = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.blake2b(json.dumps(vocabulary).encode(), digest_size=16).hexdigest()
