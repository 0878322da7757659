"""Semantic Kernel: agents by the names that they were given, in all their ways to run, and in orchestrations."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("semantic_kernel")
from openai import AsyncOpenAI
from semantic_kernel.agents import ChatCompletionAgent, OpenAIResponsesAgent, SequentialOrchestration
from semantic_kernel.agents.runtime import InProcessRuntime
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.functions import kernel_function

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"


class Calculator:
    """A plugin whose one function is the tool `calculator` if the plugin itself is called by no name."""

    @kernel_function(name="calculator", description="Evaluate an arithmetic expression.")
    def calculator(self, expression: str) -> str:
        return "42"


def client(wire: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)


def agent(wire: Any, name: str | None, **options: Any) -> ChatCompletionAgent:
    service = OpenAIChatCompletion(ai_model_id="m", async_client=client(wire))
    return ChatCompletionAgent(service=service, name=name, **options)


CALL = Said(tools=(("Calculator-calculator", {"expression": "12 + 30"}),))


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver", plugins=[Calculator()])
    wire.script(CALL)
    run = capture(lambda: solver.get_response(messages=QUESTION))
    assert_all_trained(run, wire, ["solver", "solver"])
    assert run.calls[1].request["messages"][-1]["content"] == "42"
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("Semantic Kernel", "semantic-kernel", run, async_=True)
    touched_names.assert_restored(
        "ChatCompletionAgent.get_response",
        "ChatCompletionAgent.invoke",
        "ChatCompletionAgent.invoke_stream",
        "OpenAIResponsesAgent.invoke",
    )


@pytest.mark.parametrize("method", ["invoke", "invoke_stream"])
def test_answers_piece_by_piece(wire, capture, prove, method: str) -> None:
    """In each step the agent speaks, and between the steps its reader."""

    async def main() -> None:
        solver, asked = agent(wire, "solver", plugins=[Calculator()]), False
        async for _ in getattr(solver, method)(messages=QUESTION):
            if not asked:
                asked = True
                messages = [{"role": "user", "content": QUESTION}]
                await client(wire).chat.completions.create(model="m", messages=messages)

    wire.script(CALL)
    run = capture(main)
    assert_all_trained(run, wire)
    streamed = method == "invoke_stream"
    assert sorted(zip(run.roles, [call.streamed for call in run.calls], strict=True)) == [
        ("outer", False),
        ("solver", streamed),
        ("solver", streamed),
    ]
    prove("Semantic Kernel", "semantic-kernel", run, async_=True)


def test_two_agents_at_once_and_one_without_a_name(wire, capture, prove) -> None:
    """Interleaved on one loop, each keeps its name; the random name of one that was given none makes no new role."""

    async def main() -> None:
        await asyncio.gather(
            agent(wire, "left").get_response(messages=QUESTION), agent(wire, "right").get_response(messages=QUESTION)
        )
        await agent(wire, None).get_response(messages=QUESTION)

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "outer", "right"] and run.roles[-1] == "outer"
    prove("Semantic Kernel", "semantic-kernel", run, async_=True)


def test_an_orchestration(wire, capture, prove) -> None:
    """Agents of an orchestration over a runtime of the rollout each keep their name."""

    async def main() -> None:
        team, runtime = SequentialOrchestration(members=[agent(wire, "one"), agent(wire, "two")]), InProcessRuntime()
        runtime.start()
        await (await team.invoke(QUESTION, runtime=runtime)).get()
        await runtime.stop_when_idle()

    run = capture(main)
    assert_all_trained(run, wire, ["one", "two"])
    prove("Semantic Kernel", "semantic-kernel", run, async_=True)


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    async def one(name: str) -> None:
        await agent(wire, name).get_response(messages=QUESTION)

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: asyncio.run(one(name)), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("Semantic Kernel", "semantic-kernel", run, async_=True, threads=True)


def test_a_responses_agent(wire, capture, prove) -> None:
    """An agent of the Responses API goes to the engine as chat completions, streamed too."""

    async def main() -> None:
        solver = OpenAIResponsesAgent(ai_model_id="m", client=client(wire), name="solver", instructions="Be brief.")
        await solver.get_response(messages=QUESTION)
        async for _ in solver.invoke_stream(messages=QUESTION):
            pass

    run = capture(main)
    assert_all_trained(run, wire, ["solver", "solver"])
    prove("Semantic Kernel", "semantic-kernel", run, async_=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await agent(wire, "solver").get_response(messages=QUESTION)

    assert_all_trained(capture(team), wire, ["team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        wire.script(CALL)
        await agent(wire, "solver", plugins=[Calculator()]).get_response(messages=QUESTION)
        async for _ in agent(wire, "solver").invoke_stream(messages=QUESTION):
            pass

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver"] * 3 and not any(call.trainable for call in run.calls)
