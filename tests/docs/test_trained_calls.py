"""The page of trained calls holds for the code: what it says is changed is changed, and what is refused is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.constraints.grammar import grammar_of
from lightning_embedded.constraints.json_schema import GrammarError
from lightning_embedded.serving.protocol import HARMLESS, ONLY, read_chat
from lightning_embedded.vllm import constraining
from lightning_hub.trajectories.constraint import constraint_of
from lightning_process.refusal import BadRequest
from lightning_sdk.capture.seam import ALIKE, WHOLE, OpenCall
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from lightning_vllm.request_info import RequestInfo, refuse_constraints
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "trained-calls.md").read_text("utf-8")
BODY: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "hello"}]}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "f"}}]
#: Field -> a value that an agent might write, which is not the default.
WRITTEN: dict[str, Any] = {
    "model": "gpt-x", "temperature": 0.3, "top_p": 0.5, "top_k": 20, "min_p": 0.1, "min_tokens": 5,
    "logit_bias": {"5": 1}, "bad_words": ["no"], "allowed_token_ids": [1], "frequency_penalty": 0.5,
    "presence_penalty": 0.5, "repetition_penalty": 1.5, "seed": 7, "best_of": 4, "use_beam_search": True,
    "length_penalty": 0.5, "typical_p": 0.5, "max_tokens": 9, "max_completion_tokens": 9, "logprobs": False,
    "return_token_ids": False, "n": 2, "stop": ["."], "stop_token_ids": [5], "stream": True,
    "stream_options": {"include_usage": True}, "messages": BODY["messages"], "tools": TOOLS,
    "parallel_tool_calls": False, "top_logprobs": 3,
    "reasoning_effort": "low", "chat_template_kwargs": {"a": 1}, "user": "u", "metadata": {"a": "b"},
    "response_format": {"type": "json_object"}, "tool_choice": "required",
}  # fmt: skip
TRAINING = {"temperature": 0.9, "whole_distribution": 1.0, "max_tokens_default": 77}
EVALUATION = {"temperature": 0.8, "rollout_seed": 1, "max_tokens_default": 77}


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its header."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


CHANGED = {
    name: (training, evaluation)
    for fields, training, evaluation in table("What is changed")
    for name in re.findall(r"`(\w+)`", fields)
}
REFUSED = [(row[0].strip("`"), row[1:]) for row in table("What is refused")]


def sent_body(body: dict[str, Any], sampling: dict[str, Any]) -> dict[str, Any]:
    """What a call of a trained role sends for `body`."""
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint("http://127.0.0.1:9/v1", "policy", "key"), sampling)
    with use_scope(Scope(rollout=rollout, role="solver", trainable=True)):
        call = OpenCall("openai", "/v1/chat/completions")
    made = call.rewrite(body)
    call.finish(b"")
    return made


def test_the_fields_that_are_tried_are_those_of_the_page() -> None:
    """And every field that the code replaces is on it."""
    assert CHANGED.keys() == WRITTEN.keys()
    assert {*WHOLE, *ALIKE} <= CHANGED.keys()


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("mode", [0, 1], ids=["training", "evaluation"])
def test_a_field_arrives_as_the_page_says(name: str, mode: int) -> None:
    said, body = CHANGED[name][mode], {**BODY, name: WRITTEN[name]}
    if name == "seed" and mode:
        assert sent_body(body, {"temperature": 0.0})["seed"] == 7 and sent_body(body, EVALUATION)["seed"] not in {
            7,
            None,
        }
        return
    made = sent_body(body, (TRAINING, EVALUATION)[mode])
    got = made.get(name)
    if said.startswith(("as written", "as in training")) and name not in {"temperature", "model"}:
        assert got == WRITTEN[name]
        assert not said.endswith("`sampling.max_tokens`") or sent_body(BODY, TRAINING)["max_tokens"] == 77
        return
    expected = {
        "the engine's": "policy",
        "`sampling.temperature`": 0.9,
        "`evaluation.temperature`": 0.8,
        "1.0": 1.0,
        "without effect": WHOLE.get(name),
        "taken out": None,
        "likewise": True,
        "asked for, and hidden from the agent unless it asked too": True,
    }
    assert got == expected[said]
    if said == "without effect":  # which the engine then takes
        read_chat({**BODY, name: got})


def test_verl_leaves_a_forced_call_to_the_model() -> None:
    """Since its learner knows no masks."""
    body = {**BODY, "tools": TOOLS, "tool_choice": "required"}
    assert sent_body(body, {**TRAINING, "free_choice": 1.0})["tool_choice"] == "auto"
    assert sent_body(body, TRAINING)["tool_choice"] == "required"


def grammar(constraint: str, form: str = "hermes") -> str:
    """For a model that writes calls in a form of which no grammar can be made."""
    return grammar_of(constraint, None, form, {})


def embedded_backend(body: dict[str, Any]) -> None:
    read_chat(body)
    if constraint := constraint_of(body):
        grammar(constraint)


def vllm(body: dict[str, Any]) -> None:
    asked = RequestInfo(json.dumps(body).encode())
    if asked.is_constrained:
        constraining(cast(Constraints, SimpleNamespace(grammar=grammar)))(asked.data)


def verl(body: dict[str, Any]) -> None:
    asked = RequestInfo(json.dumps(sent_body(body, {**TRAINING, "free_choice": 1.0})).encode())
    if asked.is_constrained:
        refuse_constraints(asked.data)


def named_field(error: BadRequest | GrammarError) -> str:
    """The field that an error is about."""
    name = error.param if isinstance(error, GrammarError) else json.loads(error.body)["error"]["param"]
    return str(name).partition("[")[0]


@pytest.mark.parametrize(("request_", "said"), REFUSED, ids=[request for request, _ in REFUSED])
@pytest.mark.parametrize(
    ("place", "read"), [(0, embedded_backend), (1, vllm), (2, verl)], ids=["embedded", "vllm", "verl"]
)
def test_a_request_is_refused_as_the_page_says(
    request_: str, said: list[str], place: int, read: Callable[[dict[str, Any]], None]
) -> None:
    """With that message, by the field's name; or not at all."""
    fields = json.loads(request_)
    body = {**BODY, **fields}
    if said[place].startswith("honoured"):
        read(body)
        return
    with pytest.raises((BadRequest, GrammarError), match=re.escape(said[place])) as caught:
        read(body)
    assert named_field(caught.value) in fields


def test_every_refusal_of_the_embedded_engine_is_on_the_page() -> None:
    """Each field that is taken at its default alone has a row, or is one of text completions and of replies."""
    others = {"echo", "suffix", "return_tokens_as_token_ids", "skip_special_tokens", "add_generation_prompt"}
    rows = {name for request, _ in REFUSED for name in json.loads(request)}
    assert ONLY.keys() - others <= rows


def test_a_call_is_not_forced_where_none_is_printed() -> None:
    """The words of the page are those of the error, for templates that describe calls alone."""
    for form, field in (("qwen-coder", "tool_choice"), ("pythonic", "response_format")):
        forced = {"tool_choice": "required"} if field == "tool_choice" else {"response_format": {"type": "json_object"}}
        words = f"{field} is not supported where tools may be called: this model writes calls as '{form}'"
        with pytest.raises(GrammarError, match=words):
            grammar(constraint_of({**BODY, "tools": TOOLS, **forced}), form)
    assert "tool_choice is not supported where tools may be called" in " ".join(PAGE.split())


def test_what_is_accepted_without_effect_is() -> None:
    """As agents send it unasked."""
    assert {"service_tier", "store", "verbosity"} <= HARMLESS
    read_chat({**BODY, **dict.fromkeys(HARMLESS, "x")})
