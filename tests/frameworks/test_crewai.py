"""CrewAI: agents by their roles, in crews (also with tasks in separate threads, and under a manager) and alone."""

import asyncio
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("crewai")
from crewai import LLM, Agent, Crew, Process, Task
from crewai.flow.flow import Flow, start
from crewai.tools import tool

import lightning_sdk as lightning


@tool("calculator")
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def agent(wire: Any, role: str, **options: Any) -> Agent:
    llm = LLM(
        model=options.pop("model", "gpt-4o-mini"),
        base_url=wire.url,
        api_key="mine",
        **{name: options.pop(name) for name in ("api", "stream") if name in options},
    )
    return Agent(role=role, goal="Answer.", backstory="Short.", llm=llm, max_iter=3, **options)


def task(agent: Agent, **options: Any) -> Task:
    return Task(description="What is 12 + 30?", expected_output="A number", agent=agent, **options)


def crew(wire: Any, **options: Any) -> Crew:
    """A writer and a checker."""
    writer, checker = agent(wire, "Writer"), agent(wire, "Checker")
    first = task(writer, **options)
    return Crew(agents=[writer, checker], tasks=[first, task(checker, context=[first])])


def test_a_crew_of_two(wire, capture, prove, touched_names) -> None:
    """Each agent's call is under its role with the engine's ids, and nothing stays patched."""
    team = crew(wire)  # before init()
    run = capture(lambda: team.kickoff().raw)
    assert_all_trained(run, wire, ["Writer", "Checker"])
    assert [span.name for span in run.spans][:2] == ["invoke_agent Writer", "invoke_agent Checker"]
    prove("CrewAI", "crewai", run)
    touched_names.assert_restored("Agent.execute_task", "Agent.kickoff", "Agent.akickoff")


def test_an_agent_with_a_tool(wire, capture, prove) -> None:
    """The calls before and after a tool's are the agent's."""
    solver = agent(wire, "Solver", tools=[calculator])
    wire.script(Said(tools=(("calculator", {"expression": "12 + 30"}),)), Said("It is 42."))
    run = capture(lambda: Crew(agents=[solver], tasks=[task(solver)]).kickoff().raw)
    assert run.answer == "It is 42."
    assert_all_trained(run, wire, ["Solver", "Solver"])
    prove("CrewAI", "crewai", run)


def test_a_task_in_a_separate_thread(wire, capture, prove) -> None:
    """With `async_execution`, a limited time, or both crews at once in threads, each call keeps its agent."""
    run = capture(lambda: crew(wire, async_execution=True).kickoff())
    assert_all_trained(run, wire, ["Writer", "Checker"])
    hurried = agent(wire, "Hurried", max_execution_time=60)
    run = capture(lambda: Crew(agents=[hurried], tasks=[task(hurried)]).kickoff())
    assert_all_trained(run, wire, ["Hurried"])
    prove("CrewAI", "crewai", run, threads=True)


@pytest.mark.parametrize("how", ["kickoff_async", "akickoff"])
def test_async_crews(wire, capture, prove, how) -> None:
    """Two crews at once on one loop: each call in the role of its agent."""

    async def both() -> None:
        await asyncio.gather(getattr(crew(wire), how)(), getattr(crew(wire), how)())

    run = capture(both)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["Checker", "Checker", "Writer", "Writer"]
    prove("CrewAI", "crewai", run, async_=True)


def test_agents_without_a_crew(wire, capture, prove) -> None:
    """`kickoff` of an agent alone, its async forms, and inside a flow, where it gives a coroutine; one turn each."""
    run = capture(lambda: agent(wire, "Alone").kickoff("Hello!"))
    assert_all_trained(run, wire, ["Alone"])
    assert [span.name for span in run.spans].count("invoke_agent Alone") == 1
    for how in ("kickoff_async", "akickoff"):
        run = capture(lambda how=how: getattr(agent(wire, how), how)("Hello!"))
        assert_all_trained(run, wire, [how])
        assert [span.name for span in run.spans].count(f"invoke_agent {how}") == 1
    prove("CrewAI", "crewai", run, async_=True)

    class Talk(Flow):
        _skip_auto_memory: bool = True  # a database of vectors, which is not installed here

        @start()
        async def begin(self) -> str:
            return (await agent(wire, "Flowing").kickoff("Hello!")).raw

    run = capture(lambda: Talk(suppress_flow_events=True).kickoff())
    assert_all_trained(run, wire, ["Flowing"])


def test_streamed(wire, capture, prove) -> None:
    """An LLM that streams gives the same ids."""
    run = capture(lambda: agent(wire, "Streaming", stream=True).kickoff("Hello!"))
    assert_all_trained(run, wire, ["Streaming"])
    assert run.calls[0].streamed
    prove("CrewAI", "crewai", run)


def test_a_manager_that_delegates(wire, capture) -> None:
    """In a hierarchical crew, manager and coworker each speak for themselves."""
    manager, worker = agent(wire, "Manager", allow_delegation=True), agent(wire, "Worker")
    job = Task(description="What is 12 + 30?", expected_output="A number")
    team = Crew(agents=[worker], tasks=[job], manager_agent=manager, process=Process.hierarchical)
    asked = {"task": "12 + 30", "context": "none", "coworker": "Worker"}
    wire.script(Said(tools=(("delegate_work_to_coworker", asked),)), Said("It is 42."), Said("42"))
    run = capture(lambda: team.kickoff().raw)
    assert run.answer == "42"
    assert_all_trained(run, wire, ["Manager", "Worker", "Manager"])


def test_decorators_and_roles_to_train(wire, capture) -> None:
    """A role by name overrides the agents', and `roles=` trains only the agent named, spaces around it or not."""

    @lightning.agent(role="team", trainable=True)
    def team() -> None:
        crew(wire).kickoff()

    assert_all_trained(capture(team), wire, ["team", "team"])
    run = capture(lambda: crew(wire).kickoff(), trainable=False, roles=["Checker"])
    assert [(call.role, call.trainable) for call in run.calls] == [("Writer", False), ("Checker", True)]
    run = capture(lambda: agent(wire, "  Padded\n").kickoff("Hello!"), trainable=False, roles=["Padded"])
    assert_all_trained(run, wire, ["Padded"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, a crew's requests are byte for byte what they are without us."""
    crew(wire).kickoff()
    before = wire.clear()
    run = capture(lambda: crew(wire).kickoff(), train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["Writer", "Checker"]
