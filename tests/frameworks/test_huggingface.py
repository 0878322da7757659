"""huggingface_hub: its clients in every way of calling them, and the frameworks' models that are made of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.calculator import CALCULATOR
from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("huggingface_hub", minversion="1.0")
from huggingface_hub import AsyncInferenceClient, InferenceClient, constants

MESSAGES = [{"role": "user", "content": "What is 12 + 30?"}]
NAME = "Hugging Face InferenceClient"
ASK: dict[str, Any] = {"messages": MESSAGES, "tools": [CALCULATOR], "max_tokens": 24}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are offline by more than the library's own word, which refuses loopback too."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def whole(url: str) -> Any:
    with InferenceClient(base_url=url, api_key="mine") as client:
        reply = client.chat_completion(**ASK)
    return reply.choices[0].message.tool_calls


def stream(url: str) -> Any:
    with InferenceClient(url, api_key="mine") as client:
        return [chunk for chunk in client.chat_completion(**ASK, stream=True) if chunk.choices]


async def awhole(url: str) -> Any:
    async with AsyncInferenceClient(base_url=url, api_key="mine") as client:
        reply = await client.chat.completions.create(**ASK)
    return reply.choices[0].message.tool_calls


async def astream(url: str) -> Any:
    async with AsyncInferenceClient(base_url=url, api_key="mine") as client:
        chunks = await client.chat_completion(**ASK, stream=True)
        return [chunk async for chunk in chunks if chunk.choices]


@pytest.mark.parametrize("ask", [whole, stream, awhole, astream])
def test_every_way_of_calling(wire, capture, prove, ask: Callable[[str], Any]) -> None:
    """Whole and streamed, plain and async: the engine answers with its ids, and the caller gets the library's types."""
    run = capture(lambda: ask(wire.url))
    assert run.answer
    assert_all_trained(run, wire, ["outer"])
    assert run.calls[0].framework == "huggingface_hub" and run.calls[0].streamed == ("stream" in ask.__name__)
    prove(NAME, "huggingface-hub", run, async_=ask.__name__.startswith("a"))


def test_tool_turns_begin_with_what_was_sampled(wire, capture) -> None:
    """The second prompt begins with the first one and what the model said to it, id by id."""

    def agent() -> None:
        with InferenceClient(base_url=wire.url, api_key="mine") as client:
            first = client.chat_completion(MESSAGES, tools=[CALCULATOR]).choices[0].message
            (call,) = first.tool_calls
            result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
            client.chat_completion([*MESSAGES, first, result], tools=[CALCULATOR])

    run = capture(agent)
    assert_all_trained(run, wire, ["outer", "outer"])
    first, second = run.calls
    seen = first.prompt_ids + first.completion_ids
    assert second.prompt_ids[: len(seen)] == seen


def test_many_at_once(wire, capture, prove) -> None:
    """Calls of one client that are under way together keep apart, and each its own."""

    async def agent() -> list[Any]:
        async with AsyncInferenceClient(base_url=wire.url, api_key="mine") as client:
            return await asyncio.gather(*(client.chat_completion(MESSAGES, max_tokens=8) for _ in range(8)))

    run = capture(agent)
    assert len(run.answer) == 8
    assert_all_trained(run, wire, ["outer"] * 8)
    prove(NAME, "huggingface-hub", run, async_=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent_of_smolagents(wire, capture, prove, streaming: bool) -> None:
    """The calls of its `InferenceClientModel` are the agent's."""
    smolagents = pytest.importorskip("smolagents")
    model = smolagents.InferenceClientModel(wire.url, api_key="mine")
    kind = smolagents.CodeAgent if streaming else smolagents.ToolCallingAgent
    options = {"stream_outputs": True} if streaming else {}
    code = Said("Thought: I know.\n<code>\nfinal_answer(42)\n</code>")
    wire.script(code if streaming else Said(tools=(("final_answer", {"answer": "42"}),)))
    solver = kind(model=model, tools=[], name="solver", description="d", verbosity_level=0, **options)
    run = capture(lambda: solver.run("What is 12 + 30?"))
    assert str(run.answer) == "42"
    assert_all_trained(run, wire, ["solver"])
    assert [call.streamed for call in run.calls] == [streaming]
    prove(NAME, "huggingface-hub", run)


def test_training_off_sends_the_same_bytes(wire, capture, touched_names) -> None:
    """Recorded only, requests are byte for byte what they are without us; nothing stays patched."""

    def main() -> None:
        for ask in (whole, stream):
            ask(wire.url)
        for ask in (awhole, astream):
            asyncio.run(ask(wire.url))

    main()
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear(), varying=["x-amzn-trace-id"])
    assert len(run.calls) == 4 and not any(call.trainable for call in run.calls)
    touched_names.assert_restored(
        "InferenceClient._inner_post", "AsyncInferenceClient._inner_post", "get_session", "._get_async_client"
    )
