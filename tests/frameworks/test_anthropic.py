"""The Anthropic SDK: an agent with a tool, plain, async, streamed and by the stream helper; trained and left alone."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes

pytest.importorskip("anthropic")
import anthropic

QUESTION = "What is 12 + 30?"
TOOL = {
    "name": "calculator",
    "description": "Evaluate an arithmetic expression.",
    "input_schema": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
}
ASK: dict[str, Any] = {"model": "claude-test", "max_tokens": 24, "tools": [TOOL]}


def client(wire: Any, kind: Any = anthropic.Anthropic) -> Any:
    return kind(base_url=wire.root, api_key="mine", max_retries=0)


def results(message: Any) -> list[dict[str, Any]]:
    return [
        {"type": "tool_result", "tool_use_id": block.id, "content": "42"}
        for block in message.content
        if block.type == "tool_use"
    ]


def solve(ask: Callable[[list[Any]], Any]) -> str:
    """A loop as the SDK's documentation has it: until no tool is asked for."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(3):
        message = ask(messages)
        messages.append({"role": "assistant", "content": message.content})
        if message.stop_reason != "tool_use":
            break
        messages.append({"role": "user", "content": results(message)})
    return "".join(block.text for block in message.content if block.type == "text")


def plain(wire: Any) -> str:
    made = client(wire)
    return solve(lambda messages: made.messages.create(messages=messages, **ASK))


def helper(wire: Any) -> str:
    made = client(wire)

    def ask(messages: list[Any]) -> Any:
        with made.messages.stream(messages=messages, **ASK) as stream:
            return stream.get_final_message()

    return solve(ask)


async def ask_async(wire: Any) -> str:
    made = client(wire, anthropic.AsyncAnthropic)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for _ in range(3):
        async with made.messages.stream(messages=messages, **ASK) as stream:
            message = await stream.get_final_message()
        messages.append({"role": "assistant", "content": message.content})
        if message.stop_reason != "tool_use":
            break
        messages.append({"role": "user", "content": results(message)})
    await made.close()
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("how", [plain, helper, ask_async])
def test_an_agent_with_a_tool(wire, capture, prove, touched_names, how) -> None:
    """Both calls around the tool's are trained with the engine's ids, and the second prompt goes on from the first."""
    result = capture(how, wire)
    assert "42" in result.answer
    assert_all_trained(result, wire, ["outer", "outer"])
    first, second = result.calls
    assert first.streamed == (how is not plain) and first.framework == "anthropic"
    assert second.prompt_ids[: len(first.prompt_ids + first.completion_ids)] == first.prompt_ids + first.completion_ids
    assert not [name for exchange in wire.engine for name, value in exchange.headers if "mine" in value]
    prove("Anthropic SDK", "anthropic", result, async_=how is ask_async)
    touched_names.assert_restored(
        "SyncAPIClient.request", "AsyncAPIClient._process_response", "BaseClient._build_request"
    )


def test_training_off(wire, capture) -> None:
    """The same bytes go to the user's own provider, and the hub can read what came back."""
    plain(wire)
    before = wire.clear()
    result = capture(plain, wire, train=False)
    assert_same_bytes(before, wire.clear())
    assert [call.trainable for call in result.calls] == [False, False]
    assert result.calls[0].message["tool_calls"][0]["function"]["name"] == "calculator"
    assert "42" in result.calls[1].message["content"]
