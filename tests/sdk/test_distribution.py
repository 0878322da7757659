"""What a trained call is drawn from: the model's own distribution at the training's temperature, and nothing else."""

from __future__ import annotations

import functools
import logging
from typing import Any

import openai
import pytest

import lightning_sdk as lightning
from lightning_embedded.serving.protocol import read_chat
from lightning_sdk.capture.seam import ALIKE, WHOLE
from lightning_sdk.stream import sink
from tests.sdk.provider import Provider
from tests.sdk.trained import train

ASK: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "abc"}]}
SHAPED: dict[str, Any] = {
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"7": -100},
    "extra_body": {
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "min_tokens": 5,
        "bad_words": ["no"],
        "allowed_token_ids": [1, 2],
    },
}


def test_nothing_shapes_what_is_trained_on(
    client: openai.OpenAI, engine: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """What cuts or bends the distribution gives way, as the agent's temperature does, and that is said once."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            train(
                engine, lambda: client.chat.completions.create(**ASK, **SHAPED), temperature=0.7, whole_distribution=1.0
            )
    body = engine.requests[-1].body
    assert {name: body[name] for name in WHOLE} == WHOLE and body["temperature"] == 0.7
    assert "whole_distribution" not in body
    (said,) = [each.getMessage() for each in caplog.records if "asks for" in each.getMessage()]
    assert all(name in said for name in WHOLE)


def test_a_plain_call_stays_plain(client: openai.OpenAI, engine: Provider) -> None:
    """Only the nucleus is always named: a model's folder may have its own. The engine takes all of it."""
    train(engine, lambda: client.chat.completions.create(**ASK), temperature=0.7, whole_distribution=1.0)
    body = engine.requests[-1].body
    assert {name: body[name] for name in WHOLE if name in body} == {"top_p": 1.0}
    known = {name: value for name, value in WHOLE.items() if name not in ("bad_words", "allowed_token_ids")}
    assert read_chat({**ASK, **known}).common.params.top_p == 1.0


def test_evaluation_asks_as_the_agent_does(client: openai.OpenAI, engine: Provider) -> None:
    """But for its temperature."""
    train(engine, lambda: client.chat.completions.create(**ASK, **SHAPED), temperature=0.0)
    body = engine.requests[-1].body
    assert (body["top_p"], body["top_k"], body["logit_bias"]) == (0.5, 20, {"7": -100})


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 7), ("best_of", 4), ("use_beam_search", True), ("length_penalty", 0.5), ("typical_p", 0.2)],
)
def test_what_makes_rollouts_alike_is_taken_out(
    client: openai.OpenAI,
    engine: Provider,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: Any,
) -> None:
    """With one seed, or a search for the likeliest, a group says the same: taken out while training, and said once."""
    monkeypatch.setattr(sink, "_said", set())

    def act() -> None:
        client.chat.completions.create(**ASK, n=2, extra_body={name: value})

    for _ in range(2):
        train(engine, act, temperature=1.0, whole_distribution=1.0)
    train(engine, act, temperature=0.0)
    assert [each.body.get(name) for each in engine.requests] == [None, None, value]
    assert [each.body["n"] for each in engine.requests] == [2] * 3  # each choice is drawn by itself
    assert caplog.text.count(f"asks for {name}={value!r}; while it is trained") == 1
    assert f"have no {name} instead" in caplog.text


def test_what_changes_nothing_is_not_told(
    client: openai.OpenAI, engine: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frameworks send penalties of 0 and the like with every call."""
    monkeypatch.setattr(sink, "_said", set())
    quiet = WHOLE | {name: values[0] for name, values in ALIKE.items() if values} | {"seed": None}
    act = functools.partial(client.chat.completions.create, **ASK, extra_body=quiet)
    train(engine, act, temperature=1.0, whole_distribution=1.0)
    assert not set(engine.requests[0].body) & set(ALIKE) and "asks for" not in caplog.text


def test_a_role_that_is_not_trained_keeps_its_seed(client: openai.OpenAI, provider: Provider, engine: Provider) -> None:
    """What leaves for the user's own provider is the user's affair, inside of rollouts too."""

    @lightning.agent(role="helper")
    def helper() -> None:
        client.chat.completions.create(**ASK, seed=7, extra_body={"top_k": 1})

    train(engine, helper, temperature=1.0, whole_distribution=1.0)
    assert (provider.requests[0].body["seed"], provider.requests[0].body["top_k"]) == (7, 1)
    assert engine.requests == []
