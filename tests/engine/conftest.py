"""Fixtures: a tiny random model, its engine, and the engine served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from tests.engine.served_engine import Service, make_model, make_tokenizer, serve


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return make_model(len(tokenizer))


@pytest.fixture
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Engine]:
    engine = Engine(model, tokenizer, max_slots=16)
    yield engine
    engine.close()


@pytest.fixture
def service(engine: Engine, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Iterator[Service]:
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    yield service
    stop()
