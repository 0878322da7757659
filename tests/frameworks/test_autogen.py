"""AutoGen AgentChat: agents by their names, alone and in teams; the selector's calls; a runtime started before."""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes
from tests.frameworks.scripted import Said

pytest.importorskip("autogen_agentchat")
pytest.importorskip("autogen_ext")
from autogen_agentchat.agents import AssistantAgent, BaseChatAgent, SocietyOfMindAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken, InMemoryStore, SingleThreadedAgentRuntime
from autogen_core.models import UserMessage
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient

import lightning_sdk as lightning

QUESTION = "What is 12 + 30?"
INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}


def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return "42"


def client(wire: Any) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model="gpt-4o-mini", base_url=wire.url, api_key="mine", max_retries=0, model_info=INFO
    )


def assistant(wire: Any, name: str, **options: Any) -> AssistantAgent:
    return AssistantAgent(name, client(wire), description=name, system_message=None, **options)


def pair(wire: Any) -> list[AssistantAgent]:
    return [assistant(wire, "writer"), assistant(wire, "checker")]


class Custom(BaseChatAgent):
    """An agent class that the user wrote, with its own model client."""

    def __init__(self, name: str, wire: Any) -> None:
        super().__init__(name, "custom")
        self._client = client(wire)

    @property
    def produced_message_types(self) -> Sequence[type[TextMessage]]:
        return (TextMessage,)

    async def on_messages(self, messages: Any, cancellation_token: CancellationToken) -> Response:
        reply = await self._client.create([UserMessage(content=QUESTION, source="user")])
        return Response(chat_message=TextMessage(content=str(reply.content), source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        pass


def test_an_agent_with_a_tool(wire, capture, prove, touched_names) -> None:
    """Call, tool, and the reflection on its result are the agent's, with the engine's ids; nothing stays patched."""
    agent = assistant(wire, "solver", tools=[calculator], reflect_on_tool_use=True)  # before init()
    run = capture(lambda: agent.run(task=QUESTION))
    assert "42" in run.answer.messages[-1].content
    assert_all_trained(run, wire, ["solver", "solver"])
    # run, on_messages and on_messages_stream are one turn
    assert [span.name for span in run.spans if "solver" in span.name] == ["invoke_agent solver"]
    prove("AutoGen", "autogen-agentchat", run, async_=True)
    touched_names.assert_restored(
        "BaseChatAgent.run",
        "AssistantAgent.on_messages_stream",
        "ChatAgentContainer.handle_request",
        "SingleThreadedAgentRuntime._process_publish",
        "SendMessageEnvelope.__init__",
    )


def test_streamed_tokens_and_a_reader_that_speaks_itself(wire, capture, prove) -> None:
    """Between two steps of an agent's stream, the reader's own calls are the reader's."""

    asked = TextMessage(content=QUESTION, source="user")

    async def main() -> None:
        async for _ in assistant(wire, "writer", model_client_stream=True).run_stream(task=QUESTION):
            pass
        async for _ in assistant(wire, "other").on_messages_stream([asked], CancellationToken()):
            await client(wire).create([UserMessage(content="Hello!", source="user")])

    run = capture(main)
    assert_all_trained(run, wire, ["writer", "other", "outer"])
    assert run.calls[0].streamed
    prove("AutoGen", "autogen-agentchat", run, async_=True)


def test_a_stream_that_is_left_early(wire, capture) -> None:
    """Breaking out of a team's stream leaks no role into what its reader does next."""

    async def main() -> None:
        team = RoundRobinGroupChat(pair(wire), termination_condition=MaxMessageTermination(3))
        async for message in team.run_stream(task=QUESTION):
            if getattr(message, "source", "") == "writer":
                break
        await client(wire).create([UserMessage(content="Hello!", source="user")])

    run = capture(main)
    assert run.roles[0] == "writer" and "outer" in run.roles and set(run.roles) <= {"writer", "checker", "outer"}


def test_a_team_in_turns(wire, capture, prove) -> None:
    """Each agent of a round-robin team is a role, agents of the user's own class too."""
    agents = [assistant(wire, "writer"), Custom("critic", wire)]
    team = RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(5))
    run = capture(lambda: team.run(task=QUESTION))
    assert_all_trained(run, wire, ["writer", "critic", "writer", "critic"])
    run = capture(lambda: Custom("alone", wire).run(task=QUESTION))
    assert_all_trained(run, wire, ["alone"])
    prove("AutoGen", "autogen-agentchat", run, async_=True)


def test_the_selector_s_calls_belong_to_no_agent(wire, capture) -> None:
    """Choosing the next speaker is the caller's call, and never that of the agent who spoke last."""
    agents = [*pair(wire), assistant(wire, "third")]
    team = SelectorGroupChat(agents, client(wire), termination_condition=MaxMessageTermination(3))
    wire.script(Said("checker"), Said("It is 42."), Said("writer"), Said("Fine."))
    run = capture(lambda: team.run(task=QUESTION))
    assert_all_trained(run, wire, ["outer", "checker", "outer", "writer"])
    wire.script(Said("checker"), Said("It is 42."), Said("writer"), Said("Fine."))
    run = capture(
        lambda: SelectorGroupChat(
            [*pair(wire), assistant(wire, "third")], client(wire), termination_condition=MaxMessageTermination(3)
        ).run(task=QUESTION),
        trainable=False,
        roles=["checker"],
    )
    assert [(call.role, call.trainable) for call in run.calls] == [
        ("", False),
        ("checker", True),
        ("", False),
        ("writer", False),
    ]


def test_handoffs(wire, capture) -> None:
    """After a handoff, the other agent speaks."""
    team = Swarm(
        [assistant(wire, "front", handoffs=["expert"]), assistant(wire, "expert")],
        termination_condition=MaxMessageTermination(3),
    )
    wire.script(Said(tools=(("transfer_to_expert", {}),)), Said("It is 42."))
    run = capture(lambda: team.run(task=QUESTION))
    assert_all_trained(run, wire, ["front", "expert"])


def test_an_agent_as_a_tool_and_a_team_in_an_agent(wire, capture) -> None:
    """The inner agents speak under their names; what their own agent does afterwards is that agent's."""
    boss = assistant(wire, "boss", tools=[AgentTool(assistant(wire, "expert"))], reflect_on_tool_use=True)
    wire.script(Said(tools=(("expert", {"task": QUESTION}),)), Said("It is 42."), Said("42"))
    run = capture(lambda: boss.run(task=QUESTION))
    assert_all_trained(run, wire, ["boss", "expert", "boss"])
    inner = RoundRobinGroupChat(pair(wire), termination_condition=MaxMessageTermination(3))
    society = SocietyOfMindAgent("society", inner, client(wire))
    run = capture(lambda: society.run(task=QUESTION))
    assert_all_trained(run, wire, ["writer", "checker", "society"])


def test_a_decorator_overrides(wire, capture) -> None:
    """A role given by name is the role of every agent inside."""

    @lightning.agent(role="team", trainable=True)
    async def team() -> None:
        await RoundRobinGroupChat(pair(wire), termination_condition=MaxMessageTermination(3)).run(task=QUESTION)

    run = capture(team)
    assert_all_trained(run, wire, ["team", "team"])


def test_a_runtime_that_was_started_before_the_rollout(wire, capture, prove) -> None:
    """It keeps the context of its start; its messages take the rollout and the trained role along all the same."""

    async def main() -> None:
        runtime = SingleThreadedAgentRuntime()
        Context().run(runtime.start)  # in a context that knows nothing of this rollout
        ends = MaxMessageTermination(3)
        await RoundRobinGroupChat(pair(wire), termination_condition=ends, runtime=runtime).run(task=QUESTION)
        await runtime.stop_when_idle()

    run = capture(main)
    assert_all_trained(run, wire, ["writer", "checker"])
    assert capture.outside() == []
    prove("AutoGen", "autogen-agentchat", run, async_=True)


def test_rollouts_at_once_over_one_runtime(wire, capture) -> None:
    """Two rollouts over one runtime each get their own calls, the selector's in the role of the selector's caller."""
    wire.answer = lambda exchange: Said("checker" if "select" in str(exchange.json["messages"][0]) else "It is 42.")

    async def one(role: str, runtime: SingleThreadedAgentRuntime) -> bytes:
        with lightning.rollout({}) as rollout:
            agents = [*pair(wire), assistant(wire, "third")]
            ends = MaxMessageTermination(2)
            team = SelectorGroupChat(agents, client(wire), termination_condition=ends, runtime=runtime)
            await lightning.agent(role=None)(_name(role, team.run))(task=QUESTION)
        return rollout._scope.key

    async def main() -> list[bytes]:
        runtime = SingleThreadedAgentRuntime()
        runtime.start()
        keys = await asyncio.gather(one("left", runtime), one("right", runtime))
        await runtime.stop_when_idle()
        return keys

    capture.init()
    keys = asyncio.run(main())
    for key, role in zip(keys, ("left", "right"), strict=True):
        assert [call.role for call in capture._read_events(key)[0]] == [role, "checker"]
    assert capture.outside() == []


def _name(name: str, function: Any) -> Any:
    async def run(**arguments: Any) -> Any:
        return await function(**arguments)

    run.__name__ = name
    return run


def test_training_off_sends_the_same_bytes(wire, capture) -> None:
    """Recorded only, a team's requests are byte for byte what they are without us."""

    def team() -> Any:
        agents = [assistant(wire, "solver", tools=[calculator], reflect_on_tool_use=True), assistant(wire, "checker")]
        return RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(3)).run(task=QUESTION)

    asyncio.run(team())
    before = wire.clear()
    seen = capture(team, train=False)
    assert_same_bytes(before, wire.clear())
    assert set(seen.roles) == {"solver", "checker"} and not any(call.trainable for call in seen.calls)


def test_a_trained_call_is_never_answered_by_the_cache(wire, capture) -> None:
    """Rollouts of one task ask the engine each time; the user's own calls are cached as ever, before and after."""
    kept: Any = InMemoryStore()

    async def ask() -> str:
        agent = AssistantAgent(
            "solver", ChatCompletionCache(client(wire), kept), description="solver", system_message=None
        )
        return str((await agent.run(task=QUESTION)).messages[-1].content)

    mine = asyncio.run(ask())
    wire.clear()
    for _ in range(2):
        assert_all_trained(capture(ask), wire, ["solver"])
    wire.clear()
    assert capture(ask, train=False).calls == []
    assert asyncio.run(ask()) == mine and wire.clear() == []
