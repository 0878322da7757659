"""LlamaIndex: agents of workflows by their names, alone and with handoffs, streamed or not."""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("llama_index.core")
pytest.importorskip("llama_index.llms.openai_like")
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def llm(wire: Any) -> OpenAILike:
    return OpenAILike(
        "m",
        api_base=wire.url,
        api_key="mine",
        max_retries=0,
        temperature=1.0,
        is_chat_model=True,
        is_function_calling_model=True,
    )


def agent(wire: Any, name: str, kind: type = FunctionAgent, **options: Any) -> Any:
    return kind(name=name, description=name, llm=llm(wire), **{"tools": [calculator], **options})


async def run_of(workflow: Any, **options: Any) -> Any:
    return await workflow.run(QUESTION, **options)


@pytest.mark.parametrize("streaming", [True, False])
def test_an_agent_with_a_tool(wire, capture, prove, touched_names, streaming: bool) -> None:
    """Both calls of an agent that was built before init() are its own, with the engine's ids; all is restored."""
    solver = agent(wire, "solver", streaming=streaming)
    run = capture(run_of, solver)
    assert str(run.answer) == "<answer>42</answer>"
    assert_all_trained(run, wire, ["solver", "solver"])
    assert [call.streamed for call in run.calls] == [streaming] * 2
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"] * 2
    prove("LlamaIndex", "llama-index-core", run, async_=True)
    touched_names.assert_restored("BaseWorkflowAgent.run_agent_step", "AgentWorkflow.parse_agent_output")


def test_handoff(wire, capture, prove) -> None:
    """After a handoff the other agent speaks."""
    agents = [agent(wire, "planner", tools=[], can_handoff_to=["checker"]), agent(wire, "checker", streaming=False)]
    wire.script(Said(tools=(("handoff", {"to_agent": "checker", "reason": "r"}),)), Said("It is 42."))
    run = capture(run_of, AgentWorkflow(agents=agents, root_agent="planner"))
    assert_all_trained(run, wire, ["planner", "checker"])
    prove("LlamaIndex", "llama-index-core", run, async_=True)


def test_what_else_an_agent_asks_for(wire, capture) -> None:
    """The answer after the last allowed turn and the structured output are the agent's calls too, in teams as well."""

    class Answer(BaseModel):
        value: int

    def alone_or_in_a_team(**options: Any) -> list[Any]:
        team = {name: value for name, value in options.items() if name != "tools"}
        return [agent(wire, "solver", **options), AgentWorkflow(agents=[agent(wire, "solver", **options)], **team)]

    # Older releases have no answer after the last allowed turn.
    has_last_answer = "early_stopping_method" in inspect.signature(AgentWorkflow.__init__).parameters
    for workflow in alone_or_in_a_team(early_stopping_method="generate") if has_last_answer else ():
        wire.script(Said(tools=(("calculator", {"expression": "1"}),)), Said("42"))
        run = capture(lambda each=workflow: run_of(each, max_iterations=1))
        assert_all_trained(run, wire, ["solver", "solver"])
    for workflow in alone_or_in_a_team(output_cls=Answer, tools=[]):
        wire.script(Said("42"), Said(tools=(("Answer", {"value": 42}),)))
        run = capture(run_of, workflow)
        assert_all_trained(run, wire, ["solver", "solver"])


def test_two_agents_at_once_and_one_without_a_name(wire, capture, prove) -> None:
    """Interleaved on one loop, each keeps its name; an agent that was given none is its caller."""

    async def main() -> None:
        await asyncio.gather(run_of(agent(wire, "left")), run_of(agent(wire, "right")))
        await run_of(FunctionAgent(llm=llm(wire)))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "left", "outer", "right", "right"] and run.roles[-1] == "outer"
    prove("LlamaIndex", "llama-index-core", run, async_=True)


def test_other_kinds_of_agents(wire, capture, prove) -> None:
    """A ReAct agent, and an agent class of the user's own."""

    class Custom(FunctionAgent):
        async def take_step(self, *args: Any, **kwargs: Any) -> Any:
            await self.llm.acomplete("Hello!")
            return await super().take_step(*args, **kwargs)

    wire.script(Said("Thought: I can answer without using any more tools.\nAnswer: 42"))
    run = capture(run_of, agent(wire, "thinker", ReActAgent))
    assert str(run.answer) == "42"
    assert_all_trained(run, wire, ["thinker"])
    run = capture(run_of, agent(wire, "custom", Custom, tools=[]))
    assert_all_trained(run, wire, ["custom", "custom"])
    prove("LlamaIndex", "llama-index-core", run, async_=True)


def test_agents_in_threads(wire, capture, prove) -> None:
    """Agents that run at once in a pool of threads belong to the rollout and keep their names."""

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: asyncio.run(run_of(agent(wire, name, tools=[]))), ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("LlamaIndex", "llama-index-core", run, async_=True, threads=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await run_of(agent(wire, "solver"))

    assert_all_trained(capture(team), wire, ["team", "team"])


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, an agent's requests are byte for byte what they are without us."""

    async def main() -> None:
        await run_of(agent(wire, "solver"))
        await run_of(AgentWorkflow(agents=[agent(wire, "solver", streaming=False)]))

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver"] * 4 and not any(call.trainable for call in run.calls)
