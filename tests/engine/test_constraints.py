"""Constraints: answers and calls that are made to have a form, and their log-probabilities at the learner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import openai
import pytest
import torch
from pydantic import BaseModel, ConfigDict
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_embedded.constraints import constraint
from lightning_embedded.engine.engine import Engine
from lightning_embedded.learning.learner import Learner
from lightning_embedded.serving.chat import Chat
from lightning_hub.trajectories.constraint import constraint_of
from lightning_sdk.errors import LightningError
from lightning_sdk.settings import Settings
from tests.engine.constrained_calls import ASK, learner_of, rows
from tests.engine.served_engine import Service, make_model, make_tokenizer, serve

EXPRESSION = {"type": "string", "enum": ["12 + 30", "12", "30"]}
CLOSED = {"type": "object", "additionalProperties": False}
PARAMETERS = {**CLOSED, "properties": {"expression": EXPRESSION}, "required": ["expression"]}
OTHER = {**CLOSED, "properties": {"sure": {"type": "boolean"}}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "calculator", "description": "Add.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "finish", "parameters": OTHER}},
]
NAMED = {"type": "function", "function": {"name": "finish"}}


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sign: Literal["plus", "minus"]
    sure: bool


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": Answer.model_json_schema()}}
#: What an agent asks for -> request fields.
ASKED: dict[str, dict[str, Any]] = {
    "schema": {"response_format": SCHEMA},
    "required": {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
    "named": {"tools": TOOLS, "tool_choice": NAMED},
    "tools and schema": {"tools": TOOLS, "response_format": SCHEMA},
    "free": {},
}


@pytest.fixture(scope="module")
def service(tokenizer: PreTrainedTokenizerFast) -> Iterator[Service]:
    model = make_model(len(tokenizer) + 37)  # as models do that have more rows than their tokenizer has ids
    engine = Engine(model, tokenizer, max_slots=16)
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    yield service
    stop()
    engine.close()


def ask(service: Service, **fields: Any) -> Any:
    with service.client() as client:
        given = {"model": "tiny", "messages": ASK, "max_tokens": 150, "seed": 7, **fields}
        reply = client.chat.completions.create(**given)
        return list(reply) if fields.get("stream") else reply


def test_a_schema_is_kept_whatever_the_model_would_say(service: Service) -> None:
    """`parse` of the OpenAI SDK gets its model from random weights, every time, and both of what the schema leaves."""
    with service.client() as client:
        reply = client.chat.completions.parse(
            model="tiny", messages=ASK, response_format=Answer, n=16, max_tokens=120, seed=7
        )
    found = [choice.message.parsed for choice in reply.choices]
    assert all(isinstance(each, Answer) for each in found)
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}
    assert {each.sign for each in found if each} == {"plus", "minus"}


def test_json_mode_says_objects(service: Service) -> None:
    """What ended by itself is an object."""
    reply = ask(service, response_format={"type": "json_object"}, n=16, max_tokens=200)
    whole = [choice.message.content for choice in reply.choices if choice.finish_reason == "stop"]
    assert whole and all(isinstance(json.loads(text), dict) for text in whole)


@pytest.mark.parametrize("stream", [False, True])
def test_forced_calls_are_calls(service: Service, stream: bool) -> None:
    """'required' calls one of the tools, a name that one; arguments keep the schema, and nothing else is said."""
    found = []
    for fields in (ASKED["required"], ASKED["named"]):
        reply = ask(service, n=16, stream=stream, **fields)
        if stream:
            calls = [call for chunk in reply for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        else:
            assert {choice.finish_reason for choice in reply.choices} == {"tool_calls"}
            assert not any(choice.message.content for choice in reply.choices)
            calls = [call for choice in reply.choices for call in choice.message.tool_calls]
        assert len(calls) == 16
        found.append([(call.function.name, json.loads(call.function.arguments)) for call in calls])
    required, named = found
    assert {name for name, _ in required} == {"calculator", "finish"} and {name for name, _ in named} == {"finish"}
    assert {given["expression"] for name, given in required if name == "calculator"} <= set(EXPRESSION["enum"])


def test_several_calls_may_be_forced_at_once(service: Service) -> None:
    """Unless `parallel_tool_calls` is false."""
    reply = ask(service, tools=TOOLS, tool_choice="required", n=32)
    assert max(len(choice.message.tool_calls or ()) for choice in reply.choices) > 1


def test_tools_stay_callable_next_to_a_schema(service: Service) -> None:
    """An agent with tools and an output type sends both in every turn: each answer is one or the other."""
    kinds = set()
    for choice in ask(service, n=32, **ASKED["tools and schema"]).choices:
        if choice.message.tool_calls:
            kinds.add("call")
        else:
            Answer.model_validate_json(choice.message.content)
            kinds.add("answer")
    assert kinds == {"call", "answer"}


@pytest.mark.parametrize("share", [True, False], ids=["shared", "padded"])
def test_the_learner_knows_the_distribution_that_was_drawn_from(service: Service, share: bool) -> None:
    """Its log-probs are the engine's with the masks and others without; what a grammar forces has log-prob 0."""
    made = {
        what: rows(service, n=4, temperature=0.7 if what == "named" else 1.0, **fields)
        for what, fields in ASKED.items()
    }
    learner = learner_of(service, share=share)
    everything = [row for found in made.values() for row in found]
    (micro,) = learner._network.scorer.micro_batches(everything, 1 << 20)
    with torch.no_grad():
        scores = learner._network.scorer.score(micro)
    assert float((scores.logprobs - micro.targets.sampler).abs().max()) < 1e-4
    forced = micro.targets.sampler == 0
    assert float(forced.float().mean()) > 0.25 and float(scores.logprobs[forced].abs().max()) == 0
    assert float(scores.entropy[forced].abs().max()) < 1e-5
    for what, found in made.items():
        for row in found:
            assert bool(row.constraints) == (what != "free")
            if row.constraints:
                free = np.array(learner.logprobs(replace(row, constraints=())))
                assert np.abs(free - row.logprobs[row.weights != 0]).max() > 0.1


def test_a_token_that_was_not_allowed_is_an_error(service: Service) -> None:
    """Masks that are not those of the sampler train nothing; nor does a learner without any."""
    (row,) = rows(service, **ASKED["schema"])
    tokens = row.tokens.copy()
    tokens[row.constraints[0].start] = service.chat.encode("x")[0]
    learner = learner_of(service, share=True)
    with pytest.raises(LightningError, match=r"sampled token 0 .* not allowed by the constraint"):
        learner.logprobs(replace(row, tokens=tokens))
    without = Learner(make_model(service.engine.decoder.vocabulary), Settings())
    with pytest.raises(LightningError, match="sampled under constraints"):
        without.logprobs(row)


def test_grammars_are_kept_within_a_bound(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that sends a new schema in each call does not fill the memory; the latest ones are at hand."""
    monkeypatch.setattr(constraint, "_KEPT", 2)
    constraints = Chat(service.chat.tokenizer, service.engine.decode).constraints(service.engine.decoder.vocabulary)
    for number in (1, 2, 3, 2):
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": number}}}
        constraints.start(constraint_of({"response_format": form}))
    kept = [json.loads(each)["response_format"]["json_schema"]["schema"]["const"] for each in constraints._kept]
    assert kept == [3, 2]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": {"type": "grammar"}}, "response_format", "json_object"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "odd"}}}},
            "response_format",
            "Invalid type: odd",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": {"not": {}}},
                }
            },
            "response_format",
            "not",
        ),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "no such"),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice", "'required'"),
        ({"reasoning_effort": 3}, "reasoning_effort", "expected a string"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(
    service: Service, fields: dict[str, Any], param: str, words: str
) -> None:
    """400 with the field and what is wrong with it."""
    with service.client() as client, pytest.raises(openai.BadRequestError, match=words) as caught:
        client.chat.completions.create(model="tiny", messages=ASK, extra_body=fields)
    assert caught.value.param == param


def test_how_much_to_reason_is_the_templates(
    model: LlamaForCausalLM, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Agents send it unasked: a template that knows it gets it, any other is let be, with one notice."""
    knows, plain = make_tokenizer(), make_tokenizer()
    knows.chat_template = "{{ reasoning_effort }} {{ enable_thinking }}" + str(plain.chat_template)
    for tokenizer, prompt in ((knows, "low True<|im_start|>"), (plain, "<|im_start|>")):
        chat = Chat(tokenizer, engine.decode)
        for _ in range(2):
            options = chat.reasoning("low", {})
            assert chat.prompt(ASK, None, options)[0].replace(" ", " ").startswith(prompt)
    assert caplog.text.count("reasoning_effort='low' has no effect") == 1
