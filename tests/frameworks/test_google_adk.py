"""Google ADK over LiteLLM: agents by their names, alone, transferred to, in sequence, side by side, in threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("google.adk")
pytest.importorskip("litellm")
from google.adk.agents import LlmAgent, ParallelAgent, SequentialAgent
from google.adk.agents.run_config import RunConfig, StreamingMode
from google.adk.models.lite_llm import LiteLlm
from google.adk.runners import InMemoryRunner
from google.genai import types

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


CALL = Said(tools=(("calculator", {"expression": "12 + 30"}),))


def agent(wire: Any, name: str, **options: Any) -> LlmAgent:
    model = LiteLlm("openai/m", api_base=wire.url, api_key="mine", num_retries=0)
    return LlmAgent(name=name, model=model, **{"tools": [calculator], **options})


async def run_of(root: Any, mode: StreamingMode = StreamingMode.NONE) -> str:
    """The last text that the agent says."""
    runner, text = InMemoryRunner(root, app_name="app"), ""
    session = await runner.session_service.create_session(app_name="app", user_id="u")
    asked = types.Content(role="user", parts=[types.Part(text=QUESTION)])
    async for event in runner.run_async(
        user_id="u", session_id=session.id, new_message=asked, run_config=RunConfig(streaming_mode=mode)
    ):
        for part in (event.content.parts if event.content else None) or ():
            text = part.text or text
    return text


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_with_a_tool(wire, capture, prove, touched_names, streamed: bool) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver")
    wire.script(CALL, Said("It is 42."))
    run = capture(lambda: run_of(solver, StreamingMode.SSE if streamed else StreamingMode.NONE))
    assert run.answer == "It is 42."
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [call.streamed for call in run.calls] == [streamed] * 2
    prove("Google ADK", "google-adk", run, async_=True)
    touched_names.assert_restored("BaseAgent.run_async", "BaseAgent.run_live")


def test_what_the_engine_really_samples(wire, capture, prove) -> None:
    """Not dictated: whatever the small model says is captured under the agent's name."""
    run = capture(lambda: run_of(agent(wire, "solver", tools=[])))
    assert_all_trained(run, wire, ["solver"])
    assert not any(each.scripted for each in run.exchanges)
    prove("Google ADK", "google-adk", run, async_=True)


def test_a_transfer(wire, capture, prove) -> None:
    """After a transfer the other agent speaks."""
    boss = agent(wire, "boss", tools=[], sub_agents=[agent(wire, "expert", tools=[], description="An expert.")])
    wire.script(Said(tools=(("transfer_to_agent", {"agent_name": "expert"}),)), Said("It is 42."))
    run = capture(lambda: run_of(boss))
    assert_all_trained(run, wire, ["boss", "expert"])
    prove("Google ADK", "google-adk", run, async_=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_agents_of_agents(wire, capture, prove) -> None:
    """In sequence and side by side, each agent speaks under its own name."""
    sides = ParallelAgent(name="sides", sub_agents=[agent(wire, name, tools=[]) for name in ("left", "right")])
    whole = SequentialAgent(name="whole", sub_agents=[agent(wire, "first", tools=[]), sides])
    run = capture(lambda: run_of(whole))
    assert_all_trained(run, wire)
    assert run.roles[0] == "first" and sorted(run.roles[1:]) == ["left", "right"]
    prove("Google ADK", "google-adk", run, async_=True)


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: asyncio.run(run_of(agent(wire, name, tools=[]))), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("Google ADK", "google-adk", run, async_=True, threads=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await run_of(agent(wire, "solver", tools=[]))

    assert_all_trained(capture(team), wire, ["team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        wire.script(CALL, Said("It is 42."))
        await run_of(agent(wire, "solver"))

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver", "solver"] and not any(call.trainable for call in run.calls)
