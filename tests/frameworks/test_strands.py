"""Strands: agents by their names, however they are called, in graphs and as tools."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("strands")
from openai import AsyncOpenAI
from pydantic import BaseModel
from strands import Agent, tool
from strands.models.openai import OpenAIModel
from strands.multiagent import GraphBuilder

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"

# The first agent of a process makes OpenTelemetry wrap threads, once and for all; here before our own wrapper.
Agent(callback_handler=None, model=OpenAIModel(client_args={"api_key": "k"}, model_id="m"))


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: What to evaluate.
    """
    return "42"


def agent(wire: Any, name: str | None = None, **options: Any) -> Agent:
    model = OpenAIModel(client_args={"base_url": wire.url, "api_key": "mine", "max_retries": 0}, model_id="m")
    return Agent(model=model, name=name, callback_handler=None, **{"tools": [calculator], **options})


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver")
    run = capture(lambda: solver(QUESTION))
    assert str(run.answer).strip() == "<answer>42</answer>"
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [span.name for span in run.spans if span.name.startswith("invoke_agent s")] == ["invoke_agent solver"]
    prove("Strands", "strands-agents", run, threads=True)  # the loop of a plain call runs in a thread
    touched_names.assert_restored("Agent.stream_async", "Agent.structured_output_async")


def test_streams(wire, capture, prove) -> None:
    """In each step of a stream the agent speaks, and between the steps its reader."""

    async def main() -> None:
        client, asked = AsyncOpenAI(base_url=wire.url, api_key="k"), False
        async for _ in agent(wire, "solver").stream_async(QUESTION):
            if not asked:
                asked = True
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])

    run = capture(main)
    assert_all_trained(run, wire, ["outer", "solver", "solver"])
    prove("Strands", "strands-agents", run, async_=True)


def test_two_agents_at_once_and_one_without_a_name(wire, capture, prove) -> None:
    """Interleaved on one loop, each keeps its name; an agent that was given none is its caller."""

    async def main() -> None:
        await asyncio.gather(agent(wire, "left").invoke_async(QUESTION), agent(wire, "right").invoke_async(QUESTION))
        await agent(wire, tools=[]).invoke_async(QUESTION)

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "outer", "right", "right"] and run.roles[-1] == "outer"
    prove("Strands", "strands-agents", run, async_=True)


def test_a_graph(wire, capture, prove) -> None:
    """Each node speaks as its agent, two of them at once."""
    graph = GraphBuilder()
    for name in ("plan", "left", "right"):
        graph.add_node(agent(wire, name, tools=[]), f"node_{name}")
    graph.add_edge("node_plan", "node_left")
    graph.add_edge("node_plan", "node_right")
    graph.set_execution_timeout(60)
    run = capture(lambda: graph.build()(QUESTION))
    assert_all_trained(run, wire)
    assert run.roles[0] == "plan" and sorted(run.roles[1:]) == ["left", "right"]
    prove("Strands", "strands-agents", run, threads=True)


@pytest.mark.skipif(not hasattr(Agent, "as_tool"), reason="older releases take no agent as a tool")
def test_an_agent_as_a_tool(wire, capture) -> None:
    """The inner agent speaks under its name, and the outer one again when the tool is done."""
    boss = agent(wire, "boss", tools=[agent(wire, "expert", tools=[], description="An expert.")])
    wire.script(Said(tools=(("expert", {"input": QUESTION}),)), Said("It is 42."), Said("42"))
    run = capture(lambda: boss(QUESTION))
    assert_all_trained(run, wire, ["boss", "expert", "boss"])


def test_structured_output(wire, capture) -> None:
    """The call for a structured output is the agent's."""

    class Answer(BaseModel):
        value: int

    wire.script(Said(tools=(("Answer", {"value": 42}),)))
    run = capture(lambda: agent(wire, "solver", tools=[])(QUESTION, structured_output_model=Answer))
    assert run.answer.structured_output.value == 42
    assert run.roles == ["solver"] and run.calls[0].trainable


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: agent(wire, name, tools=[])(QUESTION), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("Strands", "strands-agents", run, threads=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    def team() -> None:
        agent(wire, "solver")(QUESTION)

    assert_all_trained(capture(team), wire, ["team", "team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    def main() -> None:
        agent(wire, "solver")(QUESTION)

    main()
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver", "solver"] and not any(call.trainable for call in run.calls)
