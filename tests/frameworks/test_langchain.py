"""LangChain: agents of `create_agent` by their names: with tools, streamed, async, in batches, as another's tool."""

import asyncio
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes, assert_same_ids
from tests.frameworks.scripted import Said

pytest.importorskip("langchain")
from langchain.agents import create_agent
from langchain_core import globals as globals_
from langchain_core.caches import InMemoryCache
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models import _client_utils

import lightning_sdk as lightning

QUESTION = {"messages": [{"role": "user", "content": "What is 12 + 30?"}]}


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


@pytest.fixture(autouse=True)
def fresh_client() -> None:
    """LangChain keeps one async client for good, which does not survive the loop of the test before."""
    _client_utils._cached_async_httpx_client.cache_clear()


def model(wire: Any, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o-mini", base_url=wire.url, api_key="mine", max_retries=0, **options)


def solver(wire: Any, name: str | None = "solver", **options: Any) -> Any:
    return create_agent(model(wire, **options), tools=[calculator], name=name)


def answer(state: dict[str, Any]) -> str:
    return str(state["messages"][-1].content)


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls around a tool's are under the agent's name with the engine's ids, and nothing stays patched."""
    agent = solver(wire)  # before init()
    run = capture(lambda: answer(agent.invoke(QUESTION)))
    assert "42" in run.answer
    assert_all_trained(run, wire, ["solver", "solver"])
    assert run.calls[0].message["tool_calls"] and run.calls[1].request["messages"][-1]["role"] == "tool"
    prove("LangChain", "langchain", run)
    touched_names.assert_restored("BaseClient._build_request")


def test_streamed(wire, capture, prove) -> None:
    """Token by token, the calls are the same, and complete."""
    run = capture(lambda: [token.text for token, _ in solver(wire).stream(QUESTION, stream_mode="messages")])
    assert len(run.answer) > 2 and all(call.streamed for call in run.calls)
    assert_all_trained(run, wire, ["solver", "solver"])
    prove("LangChain", "langchain", run)


def test_async(wire, capture, prove) -> None:
    """Two agents on one loop at once keep their names."""

    async def both() -> list[str]:
        states = await asyncio.gather(*(solver(wire, name).ainvoke(QUESTION) for name in ("left", "right")))
        return [answer(state) for state in states]

    run = capture(both)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "right", "right"]
    prove("LangChain", "langchain", run, async_=True)


def test_async_stream(wire, capture) -> None:
    """An agent's async stream, and one that its reader leaves early, whose call counts for what was read."""

    async def read(first: bool) -> int:
        seen = 0
        async for _ in solver(wire).astream(QUESTION, stream_mode="messages"):
            seen += 1
            if first:
                break
        return seen

    async def main() -> int:
        await read(False)
        return await read(True)

    run = capture(main)
    assert run.answer == 1 and run.roles[:2] == ["solver", "solver"] and set(run.roles) == {"solver"}
    for call in run.calls[:2]:
        assert_same_ids(call, wire)


def test_a_batch_runs_in_threads(wire, capture, prove) -> None:
    """LangChain's thread pool takes the name along."""
    run = capture(lambda: [answer(state) for state in solver(wire).batch([QUESTION] * 3)])
    assert_all_trained(run, wire, ["solver"] * 6)
    prove("LangChain", "langchain", run, threads=True)


def test_an_agent_as_a_tool(wire, capture, prove) -> None:
    """The inner agent speaks under its name, and the outer one again after it."""
    expert = solver(wire, "expert")

    @tool
    def ask_expert(question: str) -> str:
        """Ask somebody who knows."""
        return answer(expert.invoke({"messages": [{"role": "user", "content": question}]}))

    boss = create_agent(model(wire), tools=[ask_expert], name="boss")
    wire.script(Said(tools=(("ask_expert", {"question": "What is 12 + 30?"}),)), Said("It is 42."), Said("42"))
    run = capture(lambda: answer(boss.invoke(QUESTION)))
    assert run.answer == "42"
    assert_all_trained(run, wire, ["boss", "expert", "boss"])
    prove("LangChain", "langchain", run)


def test_a_tool_that_asks_the_model_itself(wire, capture) -> None:
    """A call made by a tool without any agent is the agent's whose tool it is."""

    @tool
    def rephrase(text: str) -> str:
        """Say it otherwise."""
        return str(model(wire).invoke(text).content)

    agent = create_agent(model(wire), tools=[rephrase], name="writer")
    wire.script(Said(tools=(("rephrase", {"text": "Hello!"}),)), Said("Hi"), Said("Done"))
    run = capture(lambda: answer(agent.invoke(QUESTION)))
    assert_all_trained(run, wire, ["writer"] * 3)


def test_without_a_name_the_caller_speaks(wire, capture) -> None:
    """A chain, or an agent that nobody named, is the decorated function that runs it; a decorator overrides a name."""
    unnamed, named = solver(wire, None), solver(wire)

    @lightning.agent(role="chosen", trainable=True)
    def chosen() -> str:
        return answer(named.invoke(QUESTION))

    run = capture(lambda: [model(wire).invoke("Hello!"), unnamed.invoke(QUESTION), chosen()])
    assert_all_trained(run, wire, ["outer"] * 3 + ["chosen"] * 2)


def test_the_responses_api_is_named_too(wire, capture) -> None:
    """With `use_responses_api`, the calls are under the agent's name."""
    run = capture(lambda: answer(solver(wire, use_responses_api=True).invoke(QUESTION)))
    assert_all_trained(run, wire, ["solver", "solver"])


@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke"])
def test_training_off_sends_the_same_bytes(wire, capture, how) -> None:
    """Recorded only, the requests are byte for byte what LangChain sends without us, to the user's own provider."""

    def run() -> Any:
        result = getattr(solver(wire), how)(QUESTION)
        return asyncio.run(result) if how == "ainvoke" else list(result)

    run()
    before = wire.clear()
    _client_utils._cached_async_httpx_client.cache_clear()
    seen = capture(run, train=False)
    assert_same_bytes(before, wire.clear())
    assert set(seen.roles) == {"solver"} and not any(call.trainable for call in seen.calls)


@pytest.mark.parametrize("where", ["everywhere", "one model"])
@pytest.mark.parametrize("way", ["plain", "async", "stream"])
def test_a_trained_call_is_never_answered_by_the_cache(wire, capture, monkeypatch, where: str, way: str) -> None:
    """Rollouts of one task ask the engine each time; the user's own calls are cached as ever, before and after."""
    cache = InMemoryCache()
    if where == "everywhere":
        monkeypatch.setattr(globals_, "_llm_cache", cache)

    def ask() -> str:
        _client_utils._cached_async_httpx_client.cache_clear()
        chat = model(wire, cache=cache if where == "one model" else None, max_tokens=24)
        if way == "async":
            return str(asyncio.run(chat.ainvoke("What is 12 + 30?")).content)
        if way == "stream":  # never cached by LangChain
            return "".join(str(chunk.content) for chunk in chat.stream("What is 12 + 30?"))
        return str(chat.invoke("What is 12 + 30?").content)

    mine = ask()
    wire.clear()
    for _ in range(2):
        assert_all_trained(capture(ask), wire, ["outer"])
    wire.clear()
    if way != "stream":
        assert capture(ask, train=False).calls == []
        assert ask() == mine and wire.clear() == []
