"""LangGraph: nodes by their names, whatever client they call: in parallel, async, nested, in plain threads."""

import asyncio
import operator
import threading
import warnings
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("langgraph")
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import create_react_agent
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning

ASKED = [{"role": "user", "content": "What is 12 + 30?"}]


class State(TypedDict):
    said: Annotated[list[str], operator.add]
    messages: Annotated[list[Any], add_messages]


def ask(wire: Any) -> str:
    """The plain SDK, as many nodes use it."""
    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    return client.chat.completions.create(model="gpt-4o-mini", messages=ASKED).choices[0].message.content or ""


async def aask(wire: Any) -> str:
    async with AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0) as client:
        reply = await client.chat.completions.create(model="gpt-4o-mini", messages=ASKED)
        return reply.choices[0].message.content or ""


def model(wire: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o-mini", base_url=wire.url, api_key="mine", max_retries=0)


def react(wire: Any, name: str | None = None) -> Any:
    """Deprecated and in wide use."""
    with warnings.catch_warnings(action="ignore"):
        return create_react_agent(model(wire), [], name=name)


def graph(**nodes: Any) -> Any:
    """All nodes at once, between start and end."""
    built = StateGraph(State)
    for name, node in nodes.items():
        built.add_node(name, node)
        built.add_edge(START, name)
        built.add_edge(name, END)
    return built.compile()


def chain(**nodes: Any) -> Any:
    """One node after the other."""
    built = StateGraph(State)
    names = [START, *nodes, END]
    for name, node in nodes.items():
        built.add_node(name, node)
    for one, other in pairwise(names):
        built.add_edge(one, other)
    return built.compile()


def test_nodes_one_after_the_other(wire, capture, prove, touched_names) -> None:
    """Each node is a role, with LangChain's model or the plain SDK in it."""
    team = chain(
        writer=lambda _: {"said": [ask(wire)]}, checker=lambda _: {"said": [model(wire).invoke("Right?").content]}
    )
    run = capture(lambda: team.invoke({"said": []}))
    assert len(run.answer["said"]) == 2
    assert_all_trained(run, wire, ["writer", "checker"])
    prove("LangGraph", "langgraph", run)
    touched_names.assert_restored("BaseClient._build_request")


def test_parallel_nodes_in_threads(wire, capture, prove) -> None:
    """Nodes of one step run in threads at once, and none takes another's name."""
    together = threading.Barrier(3)

    def node(_: State) -> State:
        together.wait(20)
        return {"said": [ask(wire), ask(wire)]}

    run = capture(lambda: graph(one=node, two=node, three=node).invoke({"said": []}))
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["one", "one", "three", "three", "two", "two"]
    prove("LangGraph", "langgraph", run, threads=True)


def test_parallel_nodes_on_a_loop(wire, capture, prove) -> None:
    """Async nodes as tasks, and a plain node of an async graph in its thread."""

    async def node(_: State) -> State:
        return {"said": [await aask(wire), await aask(wire)]}

    run = capture(lambda: graph(one=node, two=node, plain=lambda _: {"said": [ask(wire)]}).ainvoke({"said": []}))
    assert_all_trained(run, wire)
    assert sorted(run.roles) == ["one", "one", "plain", "two", "two"]
    prove("LangGraph", "langgraph", run, async_=True)


def test_streamed_to_a_reader_that_speaks_itself(wire, capture, prove) -> None:
    """Between two steps of a stream, the reader's own calls are the reader's."""
    team = chain(writer=lambda _: {"said": [model(wire).invoke("Go").content]}, checker=lambda _: {"said": [ask(wire)]})

    def read() -> int:
        return sum(1 for _ in (ask(wire) for _ in team.stream({"said": []}, stream_mode="updates")))

    run = capture(read)
    assert run.answer == 2
    assert_all_trained(run, wire)
    # LangGraph may already run the next node while the reader reads.
    assert sorted(run.roles) == ["checker", "outer", "outer", "writer"]
    run = capture(lambda: [each for each, _ in team.stream({"said": []}, stream_mode="messages")])
    assert_all_trained(run, wire, ["writer", "checker"])
    assert run.calls[0].streamed
    prove("LangGraph", "langgraph", run)


def test_a_plain_thread_in_a_node(wire, capture) -> None:
    """LangGraph's own context does not reach a thread that a node starts; the role does."""

    def node(_: State) -> State:
        thread = threading.Thread(target=ask, args=(wire,))
        thread.start()
        thread.join()
        return {"said": []}

    run = capture(lambda: graph(worker=node).invoke({"said": []}))
    assert_all_trained(run, wire, ["worker"])


def test_nested_graphs_and_agents(wire, capture, prove) -> None:
    """The innermost node speaks; an agent of `create_agent` by its name, or, without one, as the node that holds it."""
    unnamed, named = create_agent(model(wire), []), create_agent(model(wire), [], name="expert")
    inner = chain(draft=lambda _: {"said": [ask(wire)]}, polish=lambda _: {"said": [ask(wire)]})

    def calls(agent: Any) -> Any:
        return lambda _: {"said": [agent.invoke({"messages": ASKED})["messages"][-1].content]}

    team = chain(
        group=inner,
        helper=calls(unnamed),
        manager=calls(named),
        boss=lambda _: {"said": inner.invoke({"said": []})["said"]},
    )
    run = capture(lambda: team.invoke({"said": []}))
    assert_all_trained(run, wire, ["draft", "polish", "helper", "expert", "draft", "polish"])
    prove("LangGraph", "langgraph", run)


def test_a_graph_as_a_tool_of_an_agent(wire, capture) -> None:
    """A graph's node inside an agent's tool is nearer than the agent, although its run inherits the agent's name."""
    inner = chain(searcher=lambda _: {"said": [ask(wire)]})

    @tool
    def search(query: str) -> str:
        """Search."""
        return str(inner.invoke({"said": []})["said"][0])

    agent = create_agent(model(wire), [search], name="boss")
    wire.script(Said(tools=(("search", {"query": "x"}),)), Said("found"), Said("done"))
    run = capture(lambda: agent.invoke({"messages": ASKED}))
    assert_all_trained(run, wire, ["boss", "searcher", "boss"])


def test_decorators_and_roles_to_train(wire, capture) -> None:
    """A decorator in a node is nearer, a role by name overrides nodes, and `roles=` trains only the node named."""

    @lightning.agent(trainable=True)
    def helper() -> str:
        return ask(wire)

    @lightning.agent(role="team", trainable=True)
    def whole() -> Any:
        return chain(one=lambda _: {"said": [ask(wire)]}).invoke({"said": []})

    team = chain(writer=lambda _: {"said": [ask(wire), helper()]}, checker=lambda _: {"said": [ask(wire)]})
    run = capture(lambda: [team.invoke({"said": []}), whole()])
    assert_all_trained(run, wire, ["writer", "helper", "checker", "team"])
    run = capture(lambda: team.invoke({"said": []}), roles=["checker"], trainable=False)
    assert [(call.role, call.trainable) for call in run.calls] == [
        ("writer", False),
        ("helper", False),
        ("checker", True),
    ]


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, a graph's requests are byte for byte what they are without us."""
    team = chain(writer=lambda _: {"said": [model(wire).invoke("Go").content]}, checker=lambda _: {"said": [ask(wire)]})
    team.invoke({"said": []})
    before = wire.clear()
    seen = capture(lambda: team.invoke({"said": []}), train=False)
    assert_same_bytes(before, wire.clear())
    assert seen.roles == ["writer", "checker"]


def test_ready_made_agents(wire, capture, prove) -> None:
    """`create_react_agent` too speaks under its name: called directly, in a node, as a node, and streamed; without a
    name as the node that holds it, or as its caller. A node of the user's may have the name of an inner one."""
    named, unnamed = react(wire, "expert"), react(wire)

    def calls(agent: Any) -> Any:
        return lambda _: {"said": [agent.invoke({"messages": ASKED})["messages"][-1].content]}

    team = chain(manager=calls(named), helper=calls(unnamed), agent=lambda _: {"said": [ask(wire)]}, expert=named)
    run = capture(lambda: [named.invoke({"messages": ASKED}), team.invoke({"said": [], "messages": ASKED})])
    assert_all_trained(run, wire, ["expert", "expert", "helper", "agent", "expert"])
    run = capture(lambda: [unnamed.invoke({"messages": ASKED}), *named.stream({"messages": ASKED})])
    assert_all_trained(run, wire, ["outer", "expert"])
    prove("LangGraph", "langgraph", run)


def test_ready_made_agents_on_a_loop(wire, capture) -> None:
    """Two at once keep their names, a reader between two steps of one speaks as itself, and one may be left early."""

    async def main() -> None:
        await asyncio.gather(*(react(wire, name).ainvoke({"messages": ASKED}) for name in ("left", "right")))
        steps = react(wire, "expert").astream({"messages": ASKED})
        await anext(steps)
        await aask(wire)
        await steps.aclose()

    run = capture(main)
    assert sorted(run.roles[:2]) == ["left", "right"] and run.roles[2:] == ["expert", "outer"]


def test_a_supervisor_and_its_agents(wire, capture, prove) -> None:
    """langgraph-supervisor: the supervisor and each agent by their names, whichever way an agent was made."""
    supervisor = pytest.importorskip("langgraph_supervisor")
    experts = [react(wire, "math"), create_agent(model(wire), [], name="prose")]
    team = supervisor.create_supervisor(experts, model=model(wire), supervisor_name="boss").compile()
    wire.script(
        Said(tools=(("transfer_to_math", {}),)),
        Said("42"),
        Said(tools=(("transfer_to_prose", {}),)),
        Said("x"),
        Said("done"),
    )
    run = capture(lambda: team.invoke({"messages": ASKED}))
    assert_all_trained(run, wire, ["boss", "math", "boss", "prose", "boss"])
    prove("LangGraph", "langgraph", run)
