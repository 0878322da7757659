"""Microsoft Agent Framework: agents by their names, streams that nothing runs until they are read, workflows."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("agent_framework")
pytest.importorskip("agent_framework_openai")
from agent_framework import Agent, ResponseStream, WorkflowBuilder, tool
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from openai import AsyncOpenAI

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"
ANSWER = "<answer>42</answer>"


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def agent(wire: Any, name: str | None, kind: type = OpenAIChatCompletionClient, **options: Any) -> Agent:
    client = kind(model="m", async_client=AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0))
    return Agent(client, name=name, **{"tools": [calculator], **options})


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver")
    run = capture(lambda: solver.run(QUESTION))
    assert run.answer.text == ANSWER
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True)
    touched_names.assert_restored("RawAgent.run")


def test_a_stream(wire, capture, prove) -> None:
    """In each step of the stream the agent speaks, and between the steps its reader; one turn, ended once."""

    async def main() -> str:
        client, asked = AsyncOpenAI(base_url=wire.url, api_key="k"), False
        stream = agent(wire, "solver").run(QUESTION, stream=True)
        async for _ in stream:
            if not asked:
                asked = True
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])
        return (await stream.get_final_response()).text

    run = capture(main)
    assert run.answer == ANSWER
    assert_all_trained(run, wire)
    assert sorted(zip(run.roles, [call.streamed for call in run.calls], strict=True)) == [
        ("outer", False),
        ("solver", True),
        ("solver", True),
    ]
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True)


def test_a_stream_read_elsewhere(wire, capture) -> None:
    """A stream belongs to where its agent was run, also when another task reads it, or only its last answer is."""

    @lightning.agent
    async def reader(stream: Any) -> str:
        return (await stream.get_final_response()).text

    async def main() -> str:
        return await asyncio.create_task(reader(agent(wire, "solver").run(QUESTION, stream=True)))

    run = capture(main)
    assert run.answer == ANSWER
    assert_all_trained(run, wire, ["solver", "solver"])


@pytest.mark.skipif(
    not hasattr(ResponseStream, "__aenter__"), reason="this version's streams are only read to their end"
)
def test_a_stream_that_is_left_early(wire, capture) -> None:
    """Leaving it ends the agent's turn and its call, and the reader speaks for itself again."""

    async def main() -> None:
        async with agent(wire, "solver").run(QUESTION, stream=True) as stream:
            async for _ in stream:
                break
        await agent(wire, None, tools=[]).run(QUESTION)

    run = capture(main)
    assert run.roles[0] == "solver" and run.roles[-1] == "outer"
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]


def test_a_stream_that_fails(wire, capture) -> None:
    """The error is the one that the user would get without us, and the turn says what it was."""
    wire.fail(400)

    async def main() -> None:
        async for _ in agent(wire, "solver").run(QUESTION, stream=True):
            pass

    run = capture(main, raises=Exception)
    assert "400" in str(run.error)
    assert [(call.role, call.http_status, call.status) for call in run.calls] == [("solver", 400, "error")]
    assert [span.status for span in run.spans if "solver" in span.name] == ["error"]


def test_two_agents_at_once(wire, capture, prove) -> None:
    """Interleaved on one loop, each keeps its name; an agent that was given none is its caller."""

    async def main() -> None:
        await asyncio.gather(agent(wire, "left").run(QUESTION), agent(wire, "right").run(QUESTION))
        await agent(wire, None, tools=[]).run(QUESTION)

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "outer", "right", "right"] and run.roles[-1] == "outer"
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_workflow(wire, capture, prove, streamed: bool) -> None:
    """Each agent of a workflow speaks under its name, streamed too."""

    async def main() -> None:
        one, two = (agent(wire, name, tools=[]) for name in ("one", "two"))
        workflow = WorkflowBuilder(start_executor=one).add_edge(one, two).build()
        if streamed:
            async for _ in workflow.run(QUESTION, stream=True):
                pass
        else:
            await workflow.run(QUESTION)

    run = capture(main)
    assert_all_trained(run, wire, ["one", "two"])
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True)


def test_an_agent_as_a_tool(wire, capture) -> None:
    """The inner agent speaks under its name, and the outer one again when the tool is done."""
    boss = agent(wire, "boss", tools=[agent(wire, "expert", tools=[]).as_tool()])
    wire.script(Said(tools=(("expert", {"task": QUESTION}),)), Said("It is 42."), Said("42"))
    run = capture(lambda: boss.run(QUESTION))
    assert_all_trained(run, wire, ["boss", "expert", "boss"])


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    async def one(name: str) -> None:
        await agent(wire, name, tools=[]).run(QUESTION)

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: asyncio.run(one(name)), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True, threads=True)


def test_the_responses_api(wire, capture, prove) -> None:
    """The framework's default client speaks Responses: a trained agent's goes to the engine as chat completions."""

    async def main() -> str:
        async for _ in agent(wire, "solver", OpenAIChatClient).run(QUESTION, stream=True):
            pass
        return (await agent(wire, "solver", OpenAIChatClient).run(QUESTION)).text

    run = capture(main)
    assert run.answer == ANSWER
    assert_all_trained(run, wire, ["solver"] * 4)
    prove("Microsoft Agent Framework", "agent-framework-core", run, async_=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await agent(wire, "solver").run(QUESTION)

    assert_all_trained(capture(team), wire, ["team", "team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        await agent(wire, "solver").run(QUESTION)
        async for _ in agent(wire, "solver").run(QUESTION, stream=True):
            pass

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver"] * 4 and not any(call.trainable for call in run.calls)
