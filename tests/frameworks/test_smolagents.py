"""smolagents: agents by their names, managed agents, code agents, streamed runs and threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("smolagents")
from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

QUESTION = "What is 12 + 30?"
FINAL = Said(tools=(("final_answer", {"answer": "42"}),))
CODE = Said("Thought: I know.\n<code>\nfinal_answer(42)\n</code>")


@tool
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: What to evaluate.
    """
    return "42"


def model(wire: Any, **options: Any) -> OpenAIModel:
    return OpenAIModel("m", api_base=wire.url, api_key="mine", client_kwargs={"max_retries": 0}, **options)


def agent(wire: Any, name: str | None, kind: type = ToolCallingAgent, **options: Any) -> Any:
    options = {"model": model(wire), "tools": [calculator], "verbosity_level": 0, **options}
    return kind(name=name, description="d", **options)


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Call and answer are the agent's, with the engine's ids; nothing stays patched."""
    solver = agent(wire, "solver")
    wire.script(Said(tools=(("calculator", {"expression": "12 + 30"}),)), FINAL)
    run = capture(lambda: solver.run(QUESTION))
    assert run.answer == "42"
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("smolagents", "smolagents", run)
    touched_names.assert_restored("MultiStepAgent.run", "BaseClient._build_request")


def test_what_the_engine_really_samples(wire, capture) -> None:
    """Not dictated: an unchanged agent, which always asks for a forced tool call, and the small model answers."""
    options = {"model": model(wire), "max_steps": 1}
    run = capture(lambda: agent(wire, "solver", **options).run(QUESTION), max_tokens_default=48)
    assert_all_trained(run, wire)
    assert set(run.roles) == {"solver"} and not any(each.scripted for each in run.exchanges)


def test_a_managed_agent(wire, capture, prove) -> None:
    """An agent in an agent speaks under its own name, and its manager again afterwards."""
    boss = agent(wire, "boss", tools=[], managed_agents=[agent(wire, "helper")])
    wire.script(Said(tools=(("helper", {"task": QUESTION, "additional_args": {}}),)), FINAL, FINAL)
    run = capture(lambda: boss.run(QUESTION))
    assert_all_trained(run, wire, ["boss", "helper", "boss"])
    prove("smolagents", "smolagents", run)


def test_streamed_steps(wire, capture, prove) -> None:
    """In each step of a streamed run the agent speaks, and between the steps its reader."""

    def main() -> None:
        steps = agent(wire, "coder", CodeAgent, stream_outputs=True).run(QUESTION, stream=True)
        next(steps)
        agent(wire, None).run("Hello!", max_steps=1)
        for _ in steps:
            pass

    wire.answer = lambda exchange: FINAL if exchange.json.get("tools") else CODE
    run = capture(main)
    assert_all_trained(run, wire, ["coder", "outer"])
    assert [call.streamed for call in run.calls] == [True, False]
    prove("smolagents", "smolagents", run)


def test_agents_in_threads_and_in_tasks(wire, capture, prove) -> None:
    """smolagents has no async API: in threads, also those of asyncio, agents keep rollout and name."""
    wire.answer = lambda _: FINAL

    def one(name: str) -> None:
        agent(wire, name).run(QUESTION)

    def pool() -> None:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(one, ["left", "right"]))

    async def tasks() -> None:
        await asyncio.gather(asyncio.to_thread(one, "left"), asyncio.to_thread(one, "right"))

    for main in (pool, tasks):
        run = capture(main)
        assert_all_trained(run, wire)
        assert sorted(run.roles) == ["left", "right"]
    prove("smolagents", "smolagents", run, threads=True)


def test_parallel_tools_carry_the_role(wire, capture) -> None:
    """Tools that one reply calls run in threads; a model that they ask belongs to the agent."""
    inner = model(wire)

    @tool
    def ask(question: str) -> str:
        """Ask a model.

        Args:
            question: What to ask.
        """
        return inner.generate([{"role": "user", "content": question}]).content

    wire.script(Said(tools=(("ask", {"question": "a"}), ("ask", {"question": "b"}))), Said("x"), Said("y"), FINAL)
    run = capture(lambda: agent(wire, "solver", tools=[ask]).run(QUESTION))
    assert_all_trained(run, wire, ["solver"] * 4)


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    def main() -> None:
        for _ in agent(wire, "solver", max_steps=2).run(QUESTION, stream=True):
            pass

    main()
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert set(run.roles) == {"solver"} and not any(call.trainable for call in run.calls)
