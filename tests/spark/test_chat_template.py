"""The chat template: what it renders, and that a reply comes back as it was sampled."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_spark.chat import render, tool, tool_call

CALCULATOR = tool("calculator", "expression")
ASK = {"role": "user", "content": "What is 2 + 3?"}
CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "2 + 3"}}</tool_call>'
REPLY = {"role": "tool", "tool_call_id": "call", "content": "5"}
ANSWER = {"role": "assistant", "content": "<answer>5</answer>"}
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "plain": ([ASK], []),
    "tools": ([ASK], [CALCULATOR]),
    "system and tools": ([{"role": "system", "content": "Be brief."}, ASK], [CALCULATOR, tool("search", "query", "n")]),
    "call and reply": ([ASK, tool_call("calculator", expression="2 + 3"), REPLY, ANSWER], [CALCULATOR]),
    "late system message": ([ASK, ANSWER, {"role": "system", "content": "Stop."}], []),
    "unknown role": ([{"role": "critic", "content": "No <b> & 'so'."}, {"role": "user"}], []),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], []),
}


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    encoded: list[int] = tokenizer(text)["input_ids"]
    return encoded


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("generate", [False, True])
def test_transformers_renders_the_same(tokenizer: PreTrainedTokenizerBase, name: str, generate: bool) -> None:
    """Pre-training renders with jinja2 alone; users render with transformers."""
    messages, tools = CONVERSATIONS[name]
    theirs = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generate)
    assert theirs == render(messages, tools, generate)


def test_a_system_message_stands_before_the_tools() -> None:
    """Neither the agent's own system message nor the tools get lost."""
    messages, tools = CONVERSATIONS["system and tools"]
    head = "<|im_start|>system\nBe brief.\nTools: calculator(expression), search(query, n)<|im_end|>\n"
    assert render(messages, tools, True) == (
        head + "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sampled"),
    [
        ('{"expression": "2 + 3"}', CALL),
        ({"expression": "2 + 3"}, CALL),
        # Not how the model writes JSON as a rule; a string of arguments is still copied as it is.
        ('{"expression":"2 + 3" }', CALL.replace('{"expression": "2 + 3"}', '{"expression":"2 + 3" }')),
    ],
)
def test_a_call_comes_back_as_it_was_sampled(
    tokenizer: PreTrainedTokenizerBase, arguments: object, sampled: str
) -> None:
    """The ids of the next prompt start with the ids of this prompt and its completion."""
    prompt = ids(tokenizer, render([ASK], [CALCULATOR], True))
    completion = ids(tokenizer, sampled + "<|im_end|>")
    call = {"id": "x", "type": "function", "function": {"name": "calculator", "arguments": arguments}}
    turns = [ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, REPLY]
    following = ids(tokenizer, render(turns, [CALCULATOR], True))
    assert following[: len(prompt) + len(completion)] == prompt + completion
    rest = "\n<|im_start|>tool\n<tool_response>5</tool_response><|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(following[len(prompt) + len(completion) :]) == rest


def test_parallel_calls_and_text_come_back_as_sampled(tokenizer: PreTrainedTokenizerBase) -> None:
    """Text and several calls stand in one turn with nothing between them."""
    second = CALL.replace("2 + 3", "4 * -5")
    calls = [tool_call("calculator", expression=text)["tool_calls"][0] for text in ("2 + 3", "4 * -5")]
    turns = [ASK, {"role": "assistant", "content": "Let me see. ", "tool_calls": calls}, REPLY, REPLY]
    prompt = ids(tokenizer, render([ASK], [CALCULATOR], True))
    completion = ids(tokenizer, f"Let me see. {CALL}{second}<|im_end|>")
    assert ids(tokenizer, render(turns, [CALCULATOR], True))[: len(prompt + completion)] == prompt + completion


def test_tools_in_other_shapes_are_rendered() -> None:
    """A tool without parameters, and one in the flat shape of the Responses API."""
    tools = [{"type": "function", "function": {"name": "now"}}, {"type": "function", "name": "flat", "parameters": {}}]
    assert "Tools: now(), flat()<|im_end|>" in render([ASK], tools)
