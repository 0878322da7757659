"""What the tests of spark share: the shipped tokenizer, as transformers loads it."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lightning_spark import folder
from lightning_spark.held_out import Exclusion, exclusion


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder())


@pytest.fixture(scope="session")
def held_out() -> Exclusion:
    return exclusion()
