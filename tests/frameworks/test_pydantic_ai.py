"""PydanticAI: agents by their names or the variables that hold them, in tasks, streams, tools and threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("pydantic_ai")
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def model(wire: Any, kind: type = OpenAIChatModel) -> Any:
    return kind("m", provider=OpenAIProvider(openai_client=AsyncOpenAI(base_url=wire.url, api_key="k", max_retries=0)))


def solver(wire: Any, **options: Any) -> Agent:
    return Agent(model(wire), name="solver", tools=[calculator], **options)


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; nothing stays patched."""
    agent = solver(wire)
    run = capture(lambda: agent.run_sync(QUESTION))
    assert run.answer.output == "<answer>42</answer>"
    assert_all_trained(run, wire, ["solver", "solver"])
    prove("PydanticAI", "pydantic-ai-slim", run)
    touched_names.assert_restored("_ContinuationStreamedResponse._get_event_iterator", "BaseClient._build_request")


def test_an_agent_named_after_its_variable(wire, capture) -> None:
    """PydanticAI looks for that name in the frame that calls it, which has to be the user's still."""

    def main() -> None:
        checker = Agent(model(wire))
        checker.run_sync(QUESTION)

    assert_all_trained(capture(main), wire, ["checker"])


def test_two_agents_at_once(wire, capture, prove) -> None:
    """Interleaved on one loop, each call keeps its agent; the caller's own call between them is the caller's."""

    async def main() -> None:
        writer, critic = Agent(model(wire), name="writer"), Agent(model(wire), name="critic")
        await asyncio.gather(writer.run(QUESTION), critic.run(QUESTION), writer.run("Hello!"))
        await AsyncOpenAI(base_url=wire.url, api_key="k").chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}]
        )

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["critic", "outer", "writer", "writer"] and run.roles[-1] == "outer"
    prove("PydanticAI", "pydantic-ai-slim", run, async_=True)


def test_streams(wire, capture, prove) -> None:
    """A streamed run is the agent's in each of its calls, which its reader opens; the reader's own calls are not."""

    async def main() -> None:
        async with solver(wire).run_stream(QUESTION) as result:
            async for _ in result.stream_text():
                await Agent(model(wire), name="reader").run("Hello!")
                break
        async with solver(wire).iter(QUESTION) as nodes:
            async for node in nodes:
                if Agent.is_model_request_node(node):
                    async with node.stream(nodes.ctx) as events:
                        async for _ in events:
                            pass

    run = capture(main)
    assert run.roles == ["solver", "solver", "reader", "solver", "solver"]
    assert [call.streamed for call in run.calls] == [True, True, False, True, True]
    assert all(call.trainable for call in run.calls)
    prove("PydanticAI", "pydantic-ai-slim", run, async_=True)


def test_an_agent_as_a_tool(wire, capture) -> None:
    """The inner agent speaks under its name, and the outer one again when the tool is done."""
    expert = Agent(model(wire), name="expert")

    async def ask_expert(question: str) -> str:
        """Ask an expert."""
        return (await expert.run(question)).output

    boss = Agent(model(wire), name="boss", tools=[ask_expert])
    wire.script(Said(tools=(("ask_expert", {"question": QUESTION}),)), Said("It is 42."), Said("42"))
    run = capture(lambda: boss.run(QUESTION))
    assert_all_trained(run, wire, ["boss", "expert", "boss"])


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    def one(name: str) -> None:
        async def main() -> None:
            await Agent(model(wire), name=name).run(QUESTION)

        asyncio.run(main())

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("PydanticAI", "pydantic-ai-slim", run, threads=True)


def test_the_responses_api(wire, capture, prove) -> None:
    """A Responses model of a trained agent goes to the engine as chat completions, tool and stream included."""

    async def main() -> str:
        agent = Agent(model(wire, OpenAIResponsesModel), name="solver", tools=[calculator])
        async with agent.run_stream(QUESTION) as result:
            assert await result.get_output() == "<answer>42</answer>"
        return (await agent.run(QUESTION)).output

    run = capture(main)
    assert run.answer == "<answer>42</answer>"
    assert_all_trained(run, wire, ["solver"] * 4)
    prove("PydanticAI", "pydantic-ai-slim", run, async_=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside; roles=[...] selects agents by name."""

    @lightning.agent(role="team", trainable=True)
    def team() -> None:
        solver(wire).run_sync(QUESTION)

    assert_all_trained(capture(team), wire, ["team", "team"])
    run = capture(lambda: solver(wire).run_sync(QUESTION), trainable=False, roles=["solver"])
    assert_all_trained(run, wire, ["solver", "solver"])
    run = capture(lambda: solver(wire).run_sync(QUESTION), roles=["another"])
    assert [call.trainable for call in run.calls] == [False, False]


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        await solver(wire).run(QUESTION)
        async with solver(wire).run_stream(QUESTION) as result:
            await result.get_output()
        await Agent(model(wire, OpenAIResponsesModel), name="solver").run(QUESTION)

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver"] * 5 and not any(call.trainable for call in run.calls)
