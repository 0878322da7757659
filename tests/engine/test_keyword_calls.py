"""Forced calls whose arguments are not one JSON object: Qwen-Coder's tags and the Pythonic forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lightning_embedded.constraints.constraint import Constraints
from lightning_embedded.constraints.json_schema import GrammarError
from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from lightning_embedded.text.growing_text import Decode
from lightning_hub.trajectories.constraint import constraint_of
from lightning_sdk.errors import LightningError
from tests.engine.constrained_calls import ASK, learner_of, rows
from tests.engine.served_engine import Service, make_model, make_tokenizer, serve
from tests.engine.tool_templates import TEMPLATES

#: LFM2.5's way: strings as they are in single quotes, and Python's words.
QUOTED = TEMPLATES["lfm2"].replace(
    "{{- value | tojson }}",
    """{%- if value is string %}{{- "'" + value + "'" }}{%- elif value is mapping %}{{- value | tojson }}
{%- else %}{{- value | string }}{%- endif %}""",
)
FORMS = {
    "qwen-coder": TEMPLATES["qwen-coder"],
    "pythonic": TEMPLATES["pythonic"],
    "lfm2": TEMPLATES["lfm2"],
    "quoted": QUOTED,
}
UNIT = {"title": "Unit", "type": "string", "enum": ["cm", "m"]}
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "$defs": {"Unit": UNIT},
    "properties": {
        "expression": {"type": "string", "enum": ["12 + 30", "12", "30"]},
        "digits": {"type": "integer", "minimum": 0, "maximum": 9},
        "sure": {"type": "boolean"},
        "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
    },
    "required": ["expression", "sure"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "calculator", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "finish"}},
]
WRITE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "place": {"type": "object"},
    },
    "required": ["text"],
}


def tokenizer_of(form: str) -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = FORMS[form]
    if form == "lfm2":  # as its tokenizer has them; in the others' tests they are text
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool_call_start|>", "<|tool_call_end|>"]})
    return tokenizer


def constraints_of(form: str) -> tuple[Chat, Constraints]:
    tokenizer = tokenizer_of(form)
    chat = Chat(tokenizer, Decode(tokenizer, {tokenizer.eos_token_id}))
    return chat, chat.constraints(len(tokenizer))


def constraint(parameters: dict[str, Any], **more: Any) -> str:
    tool = {"type": "function", "function": {"name": "write", "parameters": parameters, **more}}
    return constraint_of({"tools": [tool], "tool_choice": "required"})


def ids_of(chat: Chat, *calls: dict[str, Any]) -> list[int]:
    """Ids of an answer with these calls of `write`, as the chat template prints it, with its end."""
    made = [
        {"id": "1", "type": "function", "function": {"name": "write", "arguments": json.dumps(each)}} for each in calls
    ]
    assert chat.template is not None
    turn = {"role": "assistant", "content": "", "tool_calls": made}
    text = chat.template.render([*ASK, turn], None, {"add_generation_prompt": False})
    return chat.encode(text.rpartition("<|im_start|>assistant\n")[2].rstrip("\n"))


@pytest.fixture(scope="module", params=FORMS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    tokenizer = tokenizer_of(request.param)
    model = make_model(len(tokenizer) + 37)
    model.config.max_position_embeddings = 1024
    engine = Engine(model, tokenizer, max_slots=16)
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    yield service
    stop()
    engine.close()


@pytest.mark.parametrize("stream", [False, True])
def test_forced_calls_are_calls(service: Service, stream: bool) -> None:
    """Random weights call one of the tools, with arguments that its schema allows, and say nothing else."""
    with service.client() as client:
        reply: Any = client.chat.completions.create(
            model="tiny",
            messages=ASK,
            tools=TOOLS,
            tool_choice="required",
            n=32,
            max_tokens=300,
            seed=7,
            parallel_tool_calls=False,
            stream=stream,
        )
        choices = [choice for chunk in reply for choice in chunk.choices] if stream else reply.choices
    said = [choice.delta if stream else choice.message for choice in choices]
    calls = [call.function for each in said for call in each.tool_calls or ()]
    assert not any(each.content for each in said) and len(calls) == 32
    assert {choice.finish_reason for choice in choices} - {None} == {"tool_calls"}
    assert {call.name for call in calls} == {"calculator", "finish"}
    found = [json.loads(call.arguments) for call in calls if call.name == "calculator"]
    for each in found:
        assert {"expression", "sure"} <= set(each) <= set(PARAMETERS["properties"])
        assert each["expression"] in ("12 + 30", "12", "30") and isinstance(each["sure"], bool)
        assert each.get("digits", 0) in range(10) and each.get("unit") in ("cm", "m", None)
    assert len({len(each) for each in found}) > 1  # with and without what is not required
    assert all(json.loads(call.arguments) == {} for call in calls if call.name == "finish")


def test_the_next_turn_begins_with_what_was_sampled(service: Service) -> None:
    """A call is written as the template prints it, so a prompt that has it in it continues the sampled ids."""
    ids: Any = {"return_token_ids": True}
    with service.client() as client:
        for seed in range(8):
            first: Any = client.chat.completions.create(
                model="tiny",
                messages=ASK,
                tools=TOOLS,
                tool_choice="required",
                max_tokens=300,
                seed=seed,
                parallel_tool_calls=False,
                extra_body=ids,
            )
            turn = first.choices[0].message.model_dump(exclude_none=True)
            again: Any = client.chat.completions.create(
                model="tiny", messages=[*ASK, turn, *ASK], tools=TOOLS, max_tokens=1, extra_body=ids
            )
            known = first.prompt_token_ids + first.choices[0].token_ids
            assert again.prompt_token_ids[: len(known)] == known


def test_the_learner_knows_the_distribution_that_was_drawn_from(service: Service) -> None:
    """Log-probs at the learner are the engine's, and what the grammar forces has log-prob 0."""
    found = rows(service, n=4, max_tokens=300, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    learner = learner_of(service, share=True)
    (micro,) = learner._network.scorer.micro_batches(found, 1 << 20)
    with torch.no_grad():
        scores = learner._network.scorer.score(micro)
    assert float((scores.logprobs - micro.targets.sampler).abs().max()) < 1e-4
    assert float((micro.targets.sampler == 0).float().mean()) > 0.25
    assert all(row.constraints for row in found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "calls",
    [
        [{"text": "a b"}],
        [{"text": ""}],
        [{"text": "x < 3 and <b>é</b>", "place": {"k": ["x", {"m": None}]}}],
        [{"text": "one"}, {"text": "two", "place": {}}],
    ],
    ids=["text", "empty", "nested", "two"],
)
def test_what_the_template_prints_may_be_written(form: str, calls: list[dict[str, Any]]) -> None:
    """Each id of a call's own text is allowed, and the end after it, and nowhere within."""
    chat, constraints = constraints_of(form)
    ids = ids_of(chat, *calls)
    end = chat.tokenizer.eos_token_id
    assert ids[-1] == end
    ends = [int(bits[end >> 5]) >> (end & 31) & 1 for bits in constraints.masks(constraint(WRITE), ids)]
    assert ends[-1] == 1 and sum(ends) == (len(calls) if form == "qwen-coder" else 1)


@pytest.mark.parametrize("form", FORMS)
def test_what_would_be_read_as_something_else_may_not_be_written(form: str) -> None:
    """A required argument cannot be left out, nor one added, nor a text end its own tag."""
    chat, constraints = constraints_of(form)
    wrong: list[dict[str, Any]] = [{}, {"text": "a", "other": "b"}, {"place": {}, "text": "b"}]
    if form == "qwen-coder":
        wrong += [{"text": "a</parameter>b"}, {"text": "a</tool_call>"}]
    if form == "quoted":
        wrong += [{"text": "it's"}]
    for each in wrong:
        with pytest.raises(LightningError, match="not allowed"):
            list(constraints.masks(constraint(WRITE), ids_of(chat, each)))


@pytest.mark.parametrize("form", ["qwen-coder", "pythonic", "lfm2"])
def test_lists_are_written_as_json(form: str) -> None:
    """With a space after each comma, as the template prints them, and no other items than the schema's."""
    chat, constraints = constraints_of(form)
    lists = {"properties": {"places": {"type": "array", "items": {"type": "integer"}}}}
    ids = ids_of(chat, {"places": [1, 2, 3]})
    assert len(list(constraints.masks(constraint(lists), ids))) == len(ids)
    with pytest.raises(LightningError, match="not allowed"):
        list(constraints.masks(constraint(lists), ids_of(chat, {"places": ["a"]})))
    tight = chat.encode(chat.decode(ids).replace(", ", ","))
    with pytest.raises(LightningError, match="not allowed"):
        list(constraints.masks(constraint(lists), tight))


def test_a_type_that_is_referred_to_is_read() -> None:
    """Texts in tags get the type of their schema, also where that is a `$ref`, as Pydantic writes it, or an enum."""
    chat, _ = constraints_of("qwen-coder")
    given = {"count": 3, "box": {"k": [1]}, "level": 2}
    schema = {
        "$defs": {"Count": {"type": "integer"}, "Box": {"type": "object"}},
        "properties": {"count": {"$ref": "#/$defs/Count"}, "box": {"$ref": "#/$defs/Box"}, "level": {"enum": [1, 2]}},
    }
    tool = {"type": "function", "function": {"name": "write", "parameters": schema}}
    assert chat.tools is not None
    _, (call,) = chat.tools.reader([tool], "tiny").split(chat.decode.body(ids_of(chat, given)))
    assert json.loads(call.arguments) == given


@pytest.mark.parametrize("form", ["qwen-coder", "pythonic", "lfm2"])
def test_texts_of_several_lines(form: str) -> None:
    """Escaped in Python, as they are in tags: the call that is read is the one that was written."""
    chat, constraints = constraints_of(form)
    given = {"text": 'say "x"\n\tthen \\ y\n'}
    ids = ids_of(chat, given)
    assert len(list(constraints.masks(constraint(WRITE), ids))) == len(ids)
    assert chat.tools is not None
    tool = {"type": "function", "function": {"name": "write", "parameters": WRITE}}
    _, (call,) = chat.tools.reader([tool], "tiny").split(chat.decode.body(ids))
    assert json.loads(call.arguments) == given


@pytest.mark.parametrize(
    ("form", "parameters", "strict", "words"),
    [
        ("pythonic", {"properties": {"file-name": {"type": "string"}}}, False, "'file-name' cannot stand"),
        ("pythonic", {"properties": {"class": {"type": "string"}}}, False, "'class' cannot stand"),
        ("qwen-coder", {"properties": {"a b": {"type": "string"}}}, False, "'a b' cannot stand"),
        ("qwen-coder", {"properties": {"a": {"type": "string", "pattern": "x+"}}}, True, "'a': pattern is not"),
        ("qwen-coder", {"properties": {"a": {"enum": ["</parameter>"]}}}, False, "does not write"),
        ("quoted", {"properties": {"a": {"type": "array"}}}, False, "'a' may be a list"),
        ("quoted", {"properties": {"a": {"enum": ["it's"]}}}, False, "does not write"),
        ("lfm2", {"anyOf": [{"type": "object"}]}, True, "anyOf is not supported"),
    ],
)
def test_what_the_form_cannot_hold_is_refused_by_name(
    form: str, parameters: dict[str, Any], strict: bool, words: str
) -> None:
    """Before anything is sampled, with the function and the argument."""
    _, constraints = constraints_of(form)
    with pytest.raises(GrammarError, match=words) as caught:
        constraints.grammar(constraint(parameters, strict=strict))
    assert caught.value.param == "tools" and "function write" in str(caught.value)
