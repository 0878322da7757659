"""The OpenAI Agents SDK: run in its three ways, tools, handoffs, agents as tools; chat completions and Responses."""

import asyncio
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("agents.run_internal")
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    input_guardrail,
)
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"


@function_tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def agent(wire: Any, name: str, model: Any = OpenAIChatCompletionsModel, **options: Any) -> Agent:
    client = AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    return Agent(name=name, model=model("gpt-4o-mini", client), **options)


def run_sync(agent: Agent) -> Any:
    """As in a program without a loop."""
    return Runner.run_sync(agent, QUESTION).final_output


async def run(agent: Agent) -> Any:
    return (await Runner.run(agent, QUESTION)).final_output


async def run_streamed(agent: Agent) -> Any:
    result = Runner.run_streamed(agent, QUESTION)
    async for _ in result.stream_events():
        pass
    return result.final_output


RUNS = [run, run_sync, run_streamed]
MODELS = [OpenAIChatCompletionsModel, OpenAIResponsesModel]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", RUNS)
def test_an_agent_with_a_tool(wire, capture, prove, touched_names, how, model) -> None:
    """Both calls around a tool's are under the agent's name with the engine's ids, and nothing stays patched."""
    solver = agent(wire, "solver", model, tools=[calculator])  # before init()
    result = capture(lambda: how(solver))
    assert "42" in result.answer
    assert_all_trained(result, wire, ["solver", "solver"])
    assert [call.streamed for call in result.calls] == [how is run_streamed] * 2
    prove("OpenAI Agents", "openai-agents", result, async_=how is not run_sync)
    touched_names.assert_restored("run_single_turn", "run_single_turn_streamed")


@pytest.mark.parametrize("how", RUNS)
def test_a_handoff(wire, capture, prove, how) -> None:
    """After a handoff, the other agent speaks."""
    front = agent(wire, "front", handoffs=[agent(wire, "expert")])
    wire.script(Said(tools=(("transfer_to_expert", {}),)), Said("It is 42."))
    result = capture(lambda: how(front))
    assert result.answer == "It is 42."
    assert_all_trained(result, wire, ["front", "expert"])
    prove("OpenAI Agents", "openai-agents", result, async_=how is not run_sync)


@pytest.mark.parametrize("how", RUNS)
def test_an_agent_as_a_tool(wire, capture, how) -> None:
    """The inner agent speaks under its name, and the outer one again after it."""
    expert = agent(wire, "expert").as_tool("ask_expert", "Ask somebody who knows.")
    boss = agent(wire, "boss", tools=[expert])
    wire.script(Said(tools=(("ask_expert", {"input": QUESTION}),)), Said("It is 42."), Said("42"))
    result = capture(lambda: how(boss))
    assert result.answer == "42"
    assert_all_trained(result, wire, ["boss", "expert", "boss"])


@pytest.mark.parametrize("how", RUNS)
def test_a_tool_that_asks_the_model_itself(wire, capture, how) -> None:
    """A call made by a tool without any agent is the agent's whose tool it is."""

    @function_tool
    def rephrase(text: str) -> str:
        """Say it otherwise."""
        client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message.content or ""

    writer = agent(wire, "writer", tools=[rephrase])
    wire.script(Said(tools=(("rephrase", {"text": "Hello!"}),)), Said("Hi"), Said("Done"))
    result = capture(lambda: how(writer))
    assert_all_trained(result, wire, ["writer"] * 3)


def test_agents_at_once(wire, capture, prove) -> None:
    """Agents run at once on one loop keep their names."""

    async def together() -> None:
        await asyncio.gather(*(run(agent(wire, name, tools=[calculator])) for name in ("one", "two", "three")))

    result = capture(together)
    assert_all_trained(result, wire)
    assert sorted(result.roles) == ["one", "one", "three", "three", "two", "two"]
    prove("OpenAI Agents", "openai-agents", result, async_=True)


def test_a_guardrail_s_agent(wire, capture) -> None:
    """A guardrail that runs in parallel to the agent and asks another agent speaks under that agent's name."""
    guard = agent(wire, "guard")

    @input_guardrail
    async def careful(_context: Any, _agent: Any, text: Any) -> GuardrailFunctionOutput:
        await Runner.run(guard, text)
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    result = capture(lambda: run(agent(wire, "solver", input_guardrails=[careful])))
    assert_all_trained(result, wire)
    assert sorted(result.roles) == ["guard", "solver"]


def test_a_reader_that_speaks_itself(wire, capture) -> None:
    """Between two events of a streamed run, the reader's own calls are the reader's; also when it leaves early."""

    async def read() -> None:
        async with AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0) as client:
            result = Runner.run_streamed(agent(wire, "writer"), QUESTION)
            async for event in result.stream_events():
                if event.type == "raw_response_event":
                    messages = [{"role": "user", "content": "Hello!"}]
                    await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
                    break
            result.cancel()

    seen = capture(read)
    assert seen.roles == ["writer", "outer"]


def test_decorators_and_roles_to_train(wire, capture) -> None:
    """A role by name overrides the agents', and `roles=` trains only the agent named."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await run(agent(wire, "solver"))

    assert_all_trained(capture(team), wire, ["team"])

    async def hand_over() -> None:
        wire.script(Said(tools=(("transfer_to_expert", {}),)), Said("It is 42."))
        await run(agent(wire, "front", handoffs=[agent(wire, "expert")]))

    result = capture(hand_over, trainable=False, roles=["expert"])
    assert [(call.role, call.trainable) for call in result.calls] == [("front", False), ("expert", True)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", [run, run_streamed])
def test_training_off_sends_the_same_bytes(wire, capture, how, model) -> None:
    """Recorded only, the requests are byte for byte what they are without us."""

    def solve() -> Any:
        settings = ModelSettings(temperature=0.5, max_tokens=24)
        return how(agent(wire, "solver", model, tools=[calculator], model_settings=settings))

    asyncio.run(solve())
    before = wire.clear()
    result = capture(solve, train=False)
    assert_same_bytes(before, wire.clear())
    assert set(result.roles) == {"solver"} and not any(call.trainable for call in result.calls)
