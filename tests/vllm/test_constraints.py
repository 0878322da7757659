"""Forms of answers and forced calls with a real vLLM: what it keeps is what the learner finds again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import openai
import pytest

from lightning_embedded.learning.learner import Learner
from lightning_hub.backend import Constrained, Row
from lightning_hub.trajectories.constraint import constraint_of
from lightning_process.model import load
from lightning_sdk.settings import Settings
from tests.vllm.served import MODEL, Served

EXPRESSION = {"type": "string", "enum": ["12 + 30", "12", "30"]}
CLOSED = {"type": "object", "additionalProperties": False}
PARAMETERS = {**CLOSED, "properties": {"expression": EXPRESSION}, "required": ["expression"]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "calculator", "parameters": PARAMETERS}}]
SCHEMA = {
    **CLOSED,
    "properties": {"sign": {"enum": ["plus", "minus"]}, "why": {"type": "string"}},
    "required": ["sign"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
ASKED: dict[str, dict[str, Any]] = {
    "schema": {"response_format": FORM},
    "object": {"response_format": {"type": "json_object"}},
    "required": {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
    "named": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "calculator"}}},
    "tools and schema": {"tools": TOOLS, "response_format": FORM},
}


@pytest.mark.parametrize("what", ASKED)
def test_the_learner_knows_the_distribution_that_vllm_drew_from(two: Served, what: str) -> None:
    """Log-probs are equal with the masks and not without; the answer has its form."""
    learner = Learner(load(MODEL).model, Settings(), constraints=two.constraints)
    two.fleet.publish(learner.model.state_dict(), two.version)
    apart = 0.0
    for _ in range(4):
        reply = two.ask(max_tokens=60, **ASKED[what])
        choice, prompt = reply["choices"][0], reply["prompt_token_ids"]
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        tokens = np.array([*prompt, *choice["token_ids"]], np.int32)
        mask = (np.arange(len(tokens)) >= len(prompt)).astype(np.float32)
        given = np.zeros(len(tokens), np.float32)
        given[len(prompt) :] = logprobs
        kept = Constrained(len(prompt), len(tokens), constraint_of(ASKED[what]))
        row = Row(
            tokens=tokens,
            weights=mask,
            advantages=mask,
            logprobs=given,
            temperature=1.0,
            version=0,
            role="solver",
            rollout="r",
            constraints=(kept,),
        )
        np.testing.assert_allclose(learner.logprobs(row), logprobs, atol=1e-4)
        free = learner.logprobs(replace(row, constraints=()))
        apart = max(apart, float(np.abs(np.array(free) - logprobs).max()))
        if choice["finish_reason"] == "length":
            continue
        calls = choice["message"]["tool_calls"]
        if what in ("required", "named"):
            assert [call["function"]["name"] for call in calls] == ["calculator"]
        if calls:
            assert json.loads(calls[0]["function"]["arguments"])["expression"] in EXPRESSION["enum"]
        else:
            assert isinstance(json.loads(choice["message"]["content"]), dict)
    assert apart > 0.1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "odd"}}}},
            "response_format",
        ),
        ({"extra": {"structured_outputs": {"regex": "a+"}}}, "structured_outputs"),
        ({"extra": {"guided_json": {}}}, "guided_json"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(two: Served, fields: dict[str, Any], param: str) -> None:
    """Before a server sees it: what vLLM masked for its own words could not be found again."""
    with pytest.raises(openai.BadRequestError, match=param):
        two.ask(**fields)
