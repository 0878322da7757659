"""Haystack: components by their names in the pipeline, sync and async; an agent outside of one is its caller."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes

pytest.importorskip("haystack")
from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"
ASKED = {"messages": [ChatMessage.from_user(QUESTION)]}


@tool
def calculator(expression: Annotated[str, "What to evaluate."]) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def generator(wire: Any, **options: Any) -> OpenAIChatGenerator:
    return OpenAIChatGenerator(
        Secret.from_token("mine"), "m", api_base_url=wire.url, max_retries=0, timeout=60, **options
    )


def agent(wire: Any, **options: Any) -> Agent:
    return Agent(chat_generator=generator(wire, **options), tools=[calculator])


def pipeline(wire: Any, **options: Any) -> Pipeline:
    """An agent, then a plain generator that sees what the agent said."""
    built = Pipeline()
    built.add_component("prompt", ChatPromptBuilder([ChatMessage.from_user("{{ question }}")]))
    built.add_component("solver", agent(wire, **options))
    built.add_component("checker", generator(wire))
    built.connect("prompt.prompt", "solver.messages")
    built.connect("solver.messages", "checker.messages")
    return built


def test_a_pipeline(wire, capture, prove, touched_names) -> None:
    """Agent and generator of a pipeline built before init() speak under their components' names; all is restored."""
    built = pipeline(wire)
    run = capture(lambda: built.run({"prompt": {"question": QUESTION}}, include_outputs_from={"solver"}))
    assert run.answer["solver"]["messages"][-1].text == "<answer>42</answer>"
    assert_all_trained(run, wire, ["solver", "solver", "checker"])
    prove("Haystack", "haystack-ai", run)
    touched_names.assert_restored("Pipeline._run_component", "Pipeline._run_component_async")


def test_an_async_pipeline(wire, capture, prove) -> None:
    """The same on asyncio, two pipelines at once, and components that run side by side."""

    async def main() -> None:
        both = Pipeline()
        both.add_component("left", generator(wire))
        both.add_component("right", generator(wire))
        await asyncio.gather(
            pipeline(wire).run_async({"prompt": {"question": QUESTION}}),
            both.run_async({"left": ASKED, "right": ASKED}),
        )

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["checker", "left", "right", "solver", "solver"]
    prove("Haystack", "haystack-ai", run, async_=True)


def test_streaming(wire, capture, prove) -> None:
    """A component that streams to a callback speaks under its name; what the callback asks itself, too."""
    run = capture(lambda: pipeline(wire, streaming_callback=lambda _: None).run({"prompt": {"question": QUESTION}}))
    assert_all_trained(run, wire, ["solver", "solver", "checker"])
    assert [call.streamed for call in run.calls] == [True, True, False]
    prove("Haystack", "haystack-ai", run)


def test_outside_of_a_pipeline(wire, capture) -> None:
    """An agent has no name: alone it speaks as its caller, and a decorator names it."""

    @lightning.agent
    def researcher() -> None:
        agent(wire).run(**ASKED)

    run = capture(lambda: (agent(wire).run(**ASKED), researcher()), roles=["outer", "researcher"])
    assert_all_trained(run, wire, ["outer", "outer", "researcher", "researcher"])


def test_pipelines_in_threads(wire, capture, prove) -> None:
    """Pipelines that run at once in a pool of threads belong to the rollout and keep their components' names."""

    def one(name: str) -> None:
        built = Pipeline()
        built.add_component(name, generator(wire))
        built.run({name: ASKED})

    def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, ["left", "right"]))

    run = capture(main)
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["left", "right"]
    prove("Haystack", "haystack-ai", run, threads=True)


def test_a_decorator_overrides(wire, capture) -> None:
    """A role that a decorator names is the role of every component inside."""

    @lightning.agent(role="team", trainable=True)
    def team() -> None:
        pipeline(wire).run({"prompt": {"question": QUESTION}})

    assert_all_trained(capture(team), wire, ["team"] * 3)


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, a pipeline's requests are byte for byte what they are without us."""

    async def main() -> None:
        pipeline(wire).run({"prompt": {"question": QUESTION}})
        await pipeline(wire).run_async({"prompt": {"question": QUESTION}})

    asyncio.run(main())
    before = wire.clear()
    run = capture(main, train=False)
    assert_same_bytes(before, wire.clear())
    assert run.roles == ["solver", "solver", "checker"] * 2 and not any(call.trainable for call in run.calls)
