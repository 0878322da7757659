"""What a trained call is drawn from: the model's own distribution at the training's temperature, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from provider import Provider
from recorder import Recorder
from trained import trained

import lightning_sdk as lightning
from lightning_embedded.protocol import read_chat
from lightning_sdk.seam import WHOLE

ASK: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "abc"}]}
SHAPED: dict[str, Any] = {
    "top_p": 0.5, "frequency_penalty": 0.5, "presence_penalty": 0.5, "logit_bias": {"7": -100},
    "extra_body": {
        "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 5, "bad_words": ["no"],
        "allowed_token_ids": [1, 2],
    },
}  # fmt: skip


@pytest.fixture
def engine() -> Iterator[Provider]:
    with Provider() as engine:
        yield engine


@pytest.fixture
def client(provider: Provider, recorder: Recorder) -> Iterator[openai.OpenAI]:
    lightning.init()
    with openai.OpenAI(base_url=provider.url, api_key="users-key") as client:
        yield client
    lightning.shutdown()


def test_nothing_shapes_what_is_trained_on(
    client: openai.OpenAI, engine: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """What cuts or bends the distribution gives way, as the agent's temperature does, and that is said once."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            trained(
                engine, lambda: client.chat.completions.create(**ASK, **SHAPED), temperature=0.7, whole_distribution=1.0
            )
    body = engine.requests[-1].body
    assert {name: body[name] for name in WHOLE} == WHOLE and body["temperature"] == 0.7
    assert "whole_distribution" not in body
    (said,) = [each.getMessage() for each in caplog.records if "asks for" in each.getMessage()]
    assert all(name in said for name in WHOLE)


def test_a_plain_call_stays_plain(client: openai.OpenAI, engine: Provider) -> None:
    """Only the nucleus is always named: a model's folder may have one of its own. The engine takes all of it."""
    trained(engine, lambda: client.chat.completions.create(**ASK), temperature=0.7, whole_distribution=1.0)
    body = engine.requests[-1].body
    assert {name: body[name] for name in WHOLE if name in body} == {"top_p": 1.0}
    known = {name: value for name, value in WHOLE.items() if name not in ("bad_words", "allowed_token_ids")}
    assert read_chat({**ASK, **known}).common.params.top_p == 1.0


def test_evaluation_asks_as_the_agent_does(client: openai.OpenAI, engine: Provider) -> None:
    """But for its temperature."""
    trained(engine, lambda: client.chat.completions.create(**ASK, **SHAPED), temperature=0.0)
    body = engine.requests[-1].body
    assert (body["top_p"], body["top_k"], body["logit_bias"]) == (0.5, 20, {"7": -100})
