"""Agno: agents and teams by their names, sync and async, streamed or not, in threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("agno")
from agno.agent import Agent
from agno.models.openai import OpenAIChat, OpenAIResponses
from agno.team import Team
from openai import OpenAI

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"
ANSWER = "<answer>42</answer>"


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def model(wire: Any, kind: type = OpenAIChat) -> Any:
    return kind(id="m", base_url=wire.url, api_key="mine", max_retries=0)


def agent(wire: Any, name: str | None, **options: Any) -> Agent:
    return Agent(name=name, telemetry=False, **{"model": model(wire), "tools": [calculator], **options})


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver")
    run = capture(lambda: solver.run(QUESTION))
    assert run.answer.content == ANSWER
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("Agno", "agno", run)
    touched_names.assert_restored("Agent.run", "Agent.arun", "Agent.acontinue_run", "Team.run", "Team.continue_run")


def test_streams(wire, capture, prove) -> None:
    """In each step of a streamed run the agent speaks, and between the steps its reader, sync and async."""

    def plain() -> None:
        for place, _ in enumerate(agent(wire, "solver").run(QUESTION, stream=True)):
            if not place:
                OpenAI(base_url=wire.url, api_key="k").chat.completions.create(
                    model="m", messages=[{"role": "user", "content": QUESTION}]
                )

    async def on_a_loop() -> None:
        async for _ in agent(wire, "solver").arun(QUESTION, stream=True):
            pass

    run = capture(plain)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["outer", "solver", "solver"]
    assert {(call.role, call.streamed) for call in run.calls} == {("outer", False), ("solver", True)}
    run = capture(on_a_loop)
    assert_all_trained(run, wire, ["solver", "solver"])
    prove("Agno", "agno", run, async_=True)


def test_two_agents_at_once_and_one_without_a_name(wire, capture, prove) -> None:
    """Interleaved on one loop, each keeps its name; an agent that was given none is its caller."""

    async def main() -> None:
        await asyncio.gather(agent(wire, "left").arun(QUESTION), agent(wire, "right").arun(QUESTION))
        await agent(wire, None, tools=[]).arun(QUESTION)

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "outer", "right", "right"] and run.roles[-1] == "outer"
    prove("Agno", "agno", run, async_=True)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_team(wire, capture, prove, streamed: bool) -> None:
    """The leader speaks under the team's name, a member under its own, and then the leader again."""

    def main() -> None:
        team = Team(name="lead", members=[agent(wire, "member", tools=[])], model=model(wire), telemetry=False)
        answer = team.run(QUESTION, stream=True) if streamed else team.run(QUESTION)
        if streamed:
            list(answer)

    wire.script(
        Said(tools=(("delegate_task_to_member", {"member_id": "member", "task": QUESTION}),)), Said("42"), Said("42")
    )
    run = capture(main)
    assert_all_trained(run, wire, ["lead", "member", "lead"])
    prove("Agno", "agno", run)


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: agent(wire, name).run(QUESTION), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "right", "right"]
    prove("Agno", "agno", run, threads=True)


def test_the_responses_api(wire, capture, prove) -> None:
    """A Responses model of a trained agent goes to the engine as chat completions, tool and stream included."""

    def main() -> str:
        list(agent(wire, "solver", model=model(wire, OpenAIResponses)).run(QUESTION, stream=True))
        return agent(wire, "solver", model=model(wire, OpenAIResponses)).run(QUESTION).content

    run = capture(main)
    assert run.answer == ANSWER
    assert_all_trained(run, wire, ["solver"] * 4)
    prove("Agno", "agno", run)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    def team() -> None:
        agent(wire, "solver").run(QUESTION)

    assert_all_trained(capture(team), wire, ["team", "team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        await agent(wire, "solver").arun(QUESTION)
        agent(wire, "solver").run(QUESTION)
        list(agent(wire, "solver").run(QUESTION, stream=True))

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver"] * 6 and not any(call.trainable for call in run.calls)


def test_a_trained_call_is_never_answered_by_the_cache(wire, capture, tmp_path) -> None:
    """Rollouts of one task ask the engine each time; the user's own calls are cached as ever, before and after."""
    kept = model(wire)
    kept.cache_response, kept.cache_dir = True, str(tmp_path)

    def ask() -> str:
        return str(agent(wire, "solver", model=kept, tools=[]).run(QUESTION).content)

    mine = ask()
    wire.clear()
    for _ in range(2):
        assert_all_trained(capture(ask), wire, ["solver"])
    wire.clear()
    assert capture(ask, train=False).calls == []
    assert ask() == mine and wire.clear() == []
