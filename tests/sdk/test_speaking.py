"""Who speaks: a framework's agents by their own names, decorators over them, and never a word between two steps.

Plain classes stand in for a framework here; `tests/frameworks` has the real ones.
"""

import asyncio
import gc
import inspect
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.capture.agent_names import add_agent_source, wrap_agent
from lightning_sdk.capture.patches import Patches
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, current_scope, effective_scope, use_scope
from tests.sdk.framework import METHODS, Agent, role
from tests.sdk.recorder import Recorder


@pytest.fixture
def patches() -> Iterator[Patches]:
    """`Agent` as an integration would have it, put back at the end."""
    patches = Patches()
    for method in METHODS:
        wrap_agent(patches, Agent, method, lambda agent, *_args: agent.name)
    yield patches
    patches.undo()


framework_says: ContextVar[str] = ContextVar("framework_says", default="")


@pytest.fixture
def says(patches: Patches) -> ContextVar[str]:
    """A framework that keeps the name of the running agent in its own context variable."""
    add_agent_source(patches, framework_says.get)
    return framework_says


def saying(name: str, inside: Callable[[], Any]) -> Any:
    """Run `inside` as an agent of the framework that keeps a context variable."""
    token = framework_says.set(name)
    try:
        return inside()
    finally:
        framework_says.reset(token)


def test_each_kind_of_method_speaks_as_its_agent(patches: Patches) -> None:
    """The name holds within a method of any kind, stays one of that kind, and is gone between two steps."""
    agent = Agent("writer")
    assert agent.run() == "writer" and role() == ""
    for seen in agent.steps():
        assert (seen, role()) == ("writer", "")

    async def main() -> None:
        assert await agent.arun() == "writer" and role() == ""
        async for seen in agent.asteps():
            assert (seen, role()) == ("writer", "")

    asyncio.run(main())
    assert inspect.iscoroutinefunction(Agent.arun) and inspect.isgeneratorfunction(Agent.steps)
    assert inspect.isasyncgenfunction(Agent.asteps) and Agent.run.__doc__ == "Doc."


def test_what_a_plain_method_returns_decides(patches: Patches) -> None:
    """A plain method that returns a coroutine or a generator keeps the name while that runs, and only then."""

    async def main() -> None:
        agent = Agent("writer")
        assert agent.lazy("value") == "writer"
        waiting = agent.lazy("coroutine")
        assert role() == "" and await waiting == "writer"
        for seen in agent.lazy("steps"):
            assert (seen, role()) == ("writer", "")
        async for seen in agent.lazy("asteps"):
            assert (seen, role()) == ("writer", "")

    asyncio.run(main())


def test_interleaved_agents_keep_apart(patches: Patches) -> None:
    """Two agents stepped in turn, and many in tasks at once, each speak as themselves."""
    one, two = Agent("one").steps(), Agent("two").steps()
    assert [next(one), next(two), role(), next(one), next(two)] == ["one", "two", "", "one", "two"]

    async def main() -> list[str]:
        return await asyncio.gather(*(Agent(str(number)).arun() for number in range(9)))

    assert asyncio.run(main()) == [str(number) for number in range(9)]


def test_the_nearest_of_framework_and_nameless_decorator_speaks(patches: Patches) -> None:
    """An agent of a framework inside a function decorated without a role keeps its name, and the other way round."""

    @lightning.agent
    def tool() -> list[str]:
        return [role(), Agent("helper").run(), role()]

    @lightning.agent
    def entry() -> list[Any]:
        return [role(), Agent("writer", tool).run(), role()]

    assert entry() == ["entry", ["tool", "helper", "tool"], "entry"]


def test_an_explicit_role_overrides_every_framework_name_inside(patches: Patches, says: ContextVar[str]) -> None:
    """`@agent(role=...)` is the role of all agents of frameworks inside, however deep, and of nothing outside."""

    @lightning.agent(role="team")
    def team() -> list[Any]:
        deep = Agent("outer", lambda: saying("node", Agent("inner").run))
        return [role(), deep.run(), saying("node", role), *Agent("other").steps()]

    assert team() == ["team"] * 5
    assert Agent("writer", team).run() == ["team"] * 5
    assert Agent("writer").run() == "writer"


def test_a_decorator_inside_an_explicit_role_is_another_agent(patches: Patches) -> None:
    """The innermost decorator wins over outer ones; without a role it lets frameworks inside speak."""

    @lightning.agent
    def critic() -> list[str]:
        return [role(), Agent("helper").run()]

    @lightning.agent(role="solver")
    def solve() -> list[Any]:
        return [critic(), Agent("helper").run()]

    assert solve() == [["critic", "helper"], "solver"]


def test_a_nameless_agent_leaves_the_role_of_its_caller(patches: Patches, recorder: Recorder) -> None:
    """None and '' as a name change nothing and leave no span."""

    @lightning.agent(role=None)
    def entry() -> list[Any]:
        return [Agent(None).run(), *Agent("").steps()]

    assert entry() == ["entry"] * 3 and Agent(None).run() == ""
    assert [span.name for span in recorder.spans] == ["invoke_agent entry"]


def test_a_framework_that_says_it_itself(says: ContextVar[str]) -> None:
    """What a framework's own context says is asked at each call, and counts unless something nearer spoke since."""

    @lightning.agent
    def tool() -> list[str]:
        return [role(), saying("inner", role), role()]

    assert saying("node", lambda: [role(), tool(), role()]) == ["node", ["tool", "inner", "tool"], "node"]
    assert saying("node", lambda: Agent("bot", lambda: [role(), saying("inner", role)]).run()) == ["bot", "inner"]
    assert Agent("bot", lambda: saying("node", role)).run() == "node"
    assert role() == ""


def test_of_two_frameworks_the_one_that_changed_last_is_nearer(patches: Patches, says: ContextVar[str]) -> None:
    """A second framework's context inside an agent is heard although the first one still says the same."""
    other: ContextVar[str] = ContextVar("other", default="")
    add_agent_source(patches, other.get)

    @lightning.agent
    def tool() -> list[str]:
        seen = [role()]
        token = other.set("specialist")
        seen.append(role())
        other.reset(token)
        return [*seen, role()]

    assert saying("node", tool) == ["tool", "specialist", "tool"]


def test_threads_keep_what_a_framework_says(says: ContextVar[str]) -> None:
    """A plain thread and a pool have none of the framework's context, but the role goes with them."""
    lightning.init()
    seen: list[str] = []

    def node(pool: ThreadPoolExecutor) -> None:
        thread = threading.Thread(target=lambda: seen.append(role()))
        thread.start()
        thread.join()
        seen.append(pool.submit(role).result())

    with ThreadPoolExecutor(1) as pool:
        saying("node", lambda: node(pool))
        assert seen == ["node", "node"] and pool.submit(role).result() == ""


def test_trainable_is_inherited_and_roles_choose_by_name(patches: Patches, says: ContextVar[str]) -> None:
    """Agents of a framework are trained where the code around them is; a training's roles select by their names."""
    engine = Endpoint("http://127.0.0.1:1/v1", "spark", "key")

    def train(*roles: str) -> dict[str, bool]:
        inside = use_scope(Scope(rollout=RolloutScope("r", b"k" * 16, engine, roles=frozenset(roles)), trainable=True))
        asked = lambda: effective_scope().endpoint() is engine  # noqa: E731
        with inside:
            return {
                "writer": Agent("writer", asked).run(),
                "node": saying("node", asked),
                "frozen": lightning.agent(role="frozen")(Agent("writer", asked).run)(),
            }

    assert train() == {"writer": True, "node": True, "frozen": False}
    assert train("node") == {"writer": False, "node": True, "frozen": False}
    assert train("writer", "frozen") == {"writer": True, "node": False, "frozen": True}


def test_spans_tell_the_framework_s_tree(patches: Patches, recorder: Recorder) -> None:
    """A turn is one span under the framework's name, once although its methods call each other, with its error."""

    @lightning.agent(role="team")
    def team() -> None:
        Agent("writer").outer()
        with pytest.raises(ValueError, match="no"):
            Agent("checker").failing()

    team()
    writer, checker, outer = recorder.spans
    assert [span.name for span in recorder.spans] == [
        "invoke_agent writer",
        "invoke_agent checker",
        "invoke_agent team",
    ]
    assert [span.role for span in recorder.spans] == ["team"] * 3
    assert writer.parent == checker.parent == outer.id and (writer.status, checker.status) == ("ok", "error")
    assert checker.error == "ValueError: no" and writer.attributes["gen_ai.agent.name"] == "writer"


def test_early_close_reaches_the_agent_in_its_role(patches: Patches, recorder: Recorder) -> None:
    """A generator closed, dropped or broken out of ends inside its role, is 'cancelled', and leaks nothing."""
    ended: list[str] = []

    class Streaming(Agent):
        def steps(self) -> Iterator[Any]:
            try:
                yield 1
            finally:
                ended.append(role())

        async def asteps(self) -> AsyncIterator[Any]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                ended.append(role())

    for method in ("steps", "asteps"):
        wrap_agent(patches, Streaming, method, lambda agent: agent.name)
    closed, dropped = Streaming("closed").steps(), Streaming("dropped").steps()
    assert next(closed) == next(dropped) == 1
    closed.close()
    del dropped
    gc.collect()

    async def main() -> None:
        async for _ in Streaming("broken").asteps():
            break
        steps = Streaming("aclosed").asteps()
        await anext(steps)
        await steps.aclose()
        assert role() == ""
        for _ in range(3):  # the loop closes what was broken out of, when it comes to it
            await asyncio.sleep(0)

    asyncio.run(main())
    assert sorted(ended) == ["aclosed", "broken", "closed", "dropped"] and role() == ""
    assert {span.status for span in recorder.spans} == {"cancelled"} and len(recorder.spans) == 4


def _taking() -> Any:
    while True:
        yield


def test_errors_pass_through_and_are_not_kept_alive(patches: Patches) -> None:
    """What an agent raises arrives as it is, and nothing of ours keeps it and its frames from being freed."""

    class Marked(Exception):
        pass

    def fail() -> None:
        raise Marked("mine")

    async def main() -> None:
        with pytest.raises(Marked, match="mine"):
            await Agent("a", fail).arun()
        with pytest.raises(Marked, match="mine"):
            await anext(Agent("a", fail).asteps())

    asyncio.run(main())
    gc.collect()
    gc.disable()
    try:
        kept: list[weakref.ref[Marked]] = []
        for _ in range(3):
            try:
                next(Agent("a", fail).steps())
            except Marked as error:
                kept.append(weakref.ref(error))
        steps = lightning.agent(_taking)()
        next(steps)
        kept.append(weakref.ref(sent := Marked()))
        steps.send(sent)
        del sent
        assert [reference() for reference in kept] == [None] * 4
    finally:
        gc.enable()
    assert role() == ""


def test_a_scope_left_in_another_context_does_not_touch_that_one(patches: Patches) -> None:
    """A coroutine that began in one context and is closed inside another agent leaves that agent its role."""

    class Forever:
        def __await__(self) -> Iterator[None]:
            yield

    @lightning.agent(role="moved")
    async def move() -> None:
        await Forever()

    running = move()
    with use_scope(Scope(role="elsewhere")):
        copy_context().run(running.send, None)
    with use_scope(Scope(role="host")):
        running.close()
        assert current_scope().role == "host"


def test_a_name_that_cannot_be_told_does_no_harm(patches: Patches, caplog: pytest.LogCaptureFixture) -> None:
    """If asking for a name raises, the agent runs in its caller's role, and it is said once; names become text."""

    class Odd(Agent):
        def run(self) -> Any:
            return super().inside()

    patches.undo()
    wrap_agent(patches, Agent, "run", lambda agent: agent.missing)
    add_agent_source(patches, lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert [Agent("writer").run() for _ in range(3)] == [""] * 3
    assert [record.message for record in caplog.records if "naming the agent of run" in record.message] == [
        "lightning: naming the agent of run failed and was skipped: "
        "AttributeError(\"'Agent' object has no attribute 'missing'\")"
    ]
    patches.undo()
    wrap_agent(patches, Agent, "run", lambda _agent: types.SimpleNamespace())  # type: ignore[arg-type,return-value]
    assert Agent().run() == "namespace()"


def test_undo_puts_back_exactly(patches: Patches) -> None:
    """Attributes are the very objects they were, inherited ones are inherited again, and nobody is asked any more."""

    class Child(Agent):
        pass

    wrap_agent(patches, Child, "run", lambda agent: agent.name)
    add_agent_source(patches, framework_says.get)
    assert "run" in vars(Child) and saying("node", role) == "node"
    assert patches.undo() == []
    assert "run" not in vars(Child) and all(not hasattr(vars(Agent)[method], "__wrapped__") for method in METHODS)
    assert saying("node", role) == "" and Agent("writer").run() == ""
