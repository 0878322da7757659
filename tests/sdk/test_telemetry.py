"""OpenTelemetry beside us: its spans join the rollout's tree, ours join its, and without it nothing happens."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from provider import Provider
from recorder import Recorder

import lightning_sdk as lightning
from lightning_sdk import scope, session, sink
from lightning_sdk.call import Span, root_span_id
from lightning_sdk.wire import Event

_exporter = InMemorySpanExporter()
tracer = trace.get_tracer("retrieval")


@pytest.fixture(scope="module", autouse=True)
def tracer_provider() -> Iterator[TracerProvider]:
    """The user's own provider. The global one can be set once in a process, so the tests of this file share it."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    yield provider


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    """What the user's own exporter got."""
    _exporter.clear()
    yield _exporter
    _exporter.clear()


@pytest.fixture
def joined() -> Iterator[None]:
    session.start(frozenset({"openai"}))
    yield
    lightning.shutdown()


@lightning.agent(role="inner")
def inner() -> None:
    with tracer.start_as_current_span("inner tool"):
        pass


@lightning.agent(role="outer")
def outer() -> None:
    with tracer.start_as_current_span("outer tool", attributes={"gen_ai.tool.name": "search"}):
        inner()


def tree(recorder: Recorder) -> dict[str, str]:
    """Name of each span of the rollout -> name of its parent, '' at the top."""
    spans = [each for each in recorder.spans if each.id != root_of(recorder)]
    names = {"": "", **{span.id: span.name for span in spans}}
    calls = {f"chat {call.meta.role}": names[call.meta.parent] for call in recorder.calls}
    return {span.name: names[span.parent] for span in spans} | calls


def root_of(recorder: Recorder) -> str:
    (begin,) = recorder.of(Event.BEGIN)
    return root_span_id(begin[1])


def by_name(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


@pytest.mark.usefixtures("joined")
def test_foreign_spans_lie_in_the_agents_that_made_them(recorder: Recorder, exported: InMemorySpanExporter) -> None:
    """Agents and tools alternate in one tree, in the stream and at the user's exporter."""
    with lightning.rollout() as rollout:
        outer()
    assert tree(recorder) == {
        "invoke_agent outer": "", "outer tool": "invoke_agent outer", "invoke_agent inner": "outer tool",
        "inner tool": "invoke_agent inner",
    }  # fmt: skip
    theirs = by_name(exported)
    ours = {span.name: span.id for span in recorder.spans}
    for name, parent in (("outer tool", "invoke_agent outer"), ("inner tool", "invoke_agent inner")):
        found = theirs[name]
        assert found.parent is not None
        assert f"{found.context.trace_id:032x}" == rollout.id
        assert f"{found.parent.span_id:016x}" == ours[parent]


@pytest.mark.usefixtures("joined")
def test_a_copied_span_says_what_it_is(recorder: Recorder) -> None:
    """Attributes, role, times and error of a foreign span are kept, and who made it."""
    with lightning.rollout():
        outer()
        with pytest.raises(ValueError, match="no such page"), tracer.start_as_current_span("fetch"):
            raise ValueError("no such page")
    spans = {span.name: span for span in recorder.spans}
    tool, fetch = spans["outer tool"], spans["fetch"]
    assert tool.attributes == {"otel.scope.name": "retrieval", "gen_ai.tool.name": "search"}
    assert (tool.role, tool.status, tool.error) == ("outer", "ok", "")
    assert 0 < tool.started_ns <= tool.ended_ns
    assert (fetch.status, fetch.error, fetch.parent) == ("error", "ValueError: no such page", "")


@pytest.mark.usefixtures("joined")
def test_large_attributes_are_cut(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign span with a book in it does not fill the stream, which is told how large it is."""
    sizes = []
    monkeypatch.setattr(recorder, "put", lambda event, size: (recorder.events.append(event), sizes.append(size)))
    with lightning.rollout(), tracer.start_as_current_span("read") as span:
        span.set_attribute("book", "x" * 1_000_000)
        span.set_attribute("numbers", list(range(100_000)))
        for number in range(200):
            span.set_attribute(f"page {number}", "y" * 3000)
    (read,) = recorder.spans
    assert len(read.attributes) <= 65
    assert sum(len(str(value)) for value in read.attributes.values()) < 50_000
    assert sum(sizes) > 30_000


@pytest.mark.usefixtures("joined")
def test_calls_lie_in_the_tools_that_make_them(recorder: Recorder, provider: Provider) -> None:
    """A model called inside a tool of another instrumentor is that tool's child, elsewhere the agent's."""
    client = OpenAI(base_url=provider.url, api_key="k", max_retries=0)

    @lightning.agent(role="caller")
    def caller() -> None:
        with tracer.start_as_current_span("tool"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])

    with lightning.rollout():
        caller()
    assert tree(recorder) == {
        "invoke_agent caller": "", "tool": "invoke_agent caller", "chat caller": "tool",
    }  # fmt: skip


@lightning.agent(role="stepper")
def stepper() -> Iterator[int]:
    with tracer.start_as_current_span("whole"):
        for number in range(3):
            with tracer.start_as_current_span(f"step {number}"):
                pass
            yield number


@lightning.agent(role="astepper")
async def astepper() -> AsyncIterator[int]:
    with tracer.start_as_current_span("whole"):
        for number in range(3):
            await asyncio.sleep(0)
            with tracer.start_as_current_span(f"step {number}"):
                pass
            yield number


STEPPED = {f"step {number}": "whole" for number in range(3)}


@pytest.mark.usefixtures("joined")
def test_generators_never_leak_and_never_forget(recorder: Recorder) -> None:
    """Between two steps the consumer's context is its own; a span that a generator holds across them stays."""
    with lightning.rollout():
        with tracer.start_as_current_span("consumer") as mine:
            for _ in stepper():
                assert trace.get_current_span() is mine
        with tracer.start_as_current_span("after"):
            pass
    assert tree(recorder) == {
        "consumer": "", "invoke_agent stepper": "consumer", "whole": "invoke_agent stepper", **STEPPED, "after": "",
    }  # fmt: skip


@pytest.mark.usefixtures("joined")
def test_async_generators_too(recorder: Recorder) -> None:
    """The same between the steps of an async generator."""

    async def consume() -> None:
        with lightning.rollout(), tracer.start_as_current_span("consumer") as mine:
            async for _ in astepper():
                assert trace.get_current_span() is mine

    asyncio.run(consume())
    assert tree(recorder) == {
        "consumer": "", "invoke_agent astepper": "consumer", "whole": "invoke_agent astepper", **STEPPED,
    }  # fmt: skip


@pytest.mark.usefixtures("joined")
def test_interleaved_agents_keep_their_own_tools(recorder: Recorder) -> None:
    """Two agents at once in one event loop: each tool lies in its agent."""

    async def work(name: str) -> None:
        @lightning.agent(role=name)
        async def agent() -> None:
            for _ in range(3):
                with tracer.start_as_current_span(f"tool of {name}"):
                    await asyncio.sleep(0)

        await agent()

    async def both() -> None:
        with lightning.rollout():
            await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    assert tree(recorder) == {
        "invoke_agent a": "", "invoke_agent b": "", "tool of a": "invoke_agent a", "tool of b": "invoke_agent b",
    }  # fmt: skip


@pytest.mark.usefixtures("joined")
def test_threads_carry_the_rollout(recorder: Recorder) -> None:
    """What a thread or a pool records belongs to the agent that started it."""

    def tool(name: str) -> None:
        with tracer.start_as_current_span(name):
            pass

    @lightning.agent(role="starter")
    def starter() -> None:
        thread = threading.Thread(target=tool, args=("in a thread",))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(tool, "in a pool").result()

    with lightning.rollout():
        starter()
    assert tree(recorder) == {
        "invoke_agent starter": "", "in a thread": "invoke_agent starter", "in a pool": "invoke_agent starter",
    }  # fmt: skip


@pytest.mark.usefixtures("joined")
def test_a_context_handed_on_by_hand_is_followed(recorder: Recorder) -> None:
    """A span begun in a thread that knows nothing of us, with a context of the rollout, is the rollout's."""
    with lightning.rollout(), tracer.start_as_current_span("parent") as parent:
        context = trace.set_span_in_context(parent)

        def elsewhere() -> None:
            with scope.entered(scope.Scope()), tracer.start_as_current_span("child", context=context):
                pass

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert tree(recorder) == {"parent": "", "child": "parent"}


@pytest.mark.usefixtures("joined")
def test_a_span_of_another_trace_is_hung_in(recorder: Recorder) -> None:
    """A span that is made the root of a trace of its own inside an agent is kept as that agent's."""

    @lightning.agent(role="loner")
    def loner() -> None:
        from opentelemetry.context import Context  # noqa: PLC0415 - named where it is the point

        with tracer.start_as_current_span("root of its own", context=Context()):
            pass

    with lightning.rollout():
        loner()
    assert tree(recorder) == {"invoke_agent loner": "", "root of its own": "invoke_agent loner"}


@pytest.mark.usefixtures("joined")
def test_the_users_trace_is_linked(recorder: Recorder, exported: InMemorySpanExporter) -> None:
    """A rollout is a trace of its own; the trace that it was started in is linked, and goes on afterwards."""
    with tracer.start_as_current_span("request") as request:
        with lightning.rollout(), tracer.start_as_current_span("tool"):
            pass
        assert trace.get_current_span() is request
        with tracer.start_as_current_span("response"):
            pass
    theirs = by_name(exported)
    at = theirs["request"].context
    (link,) = [span for span in recorder.spans if span.id == root_of(recorder)]
    assert link.attributes == {
        "lightning.link.trace_id": f"{at.trace_id:032x}", "lightning.link.span_id": f"{at.span_id:016x}",
    }  # fmt: skip
    assert theirs["response"].context.trace_id == at.trace_id != theirs["tool"].context.trace_id


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize("early", [True, False])
def test_outside_of_rollouts_we_join_the_users_trace(
    recorder: Recorder, exported: InMemorySpanExporter, provider: Provider, early: bool
) -> None:
    """The user's spans are not touched; ours are children of theirs and carry their trace."""
    client = OpenAI(base_url=provider.url, api_key="k", max_retries=0)

    @lightning.agent(role="observed")
    def observed() -> None:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        with tracer.start_as_current_span("tool"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "b"}])

    if early:  # the provider is listened to from the first scope on, else only once the request is under way
        with lightning.rollout():
            pass
    with tracer.start_as_current_span("request"):
        observed()
    theirs = by_name(exported)
    tool_parent = theirs["tool"].parent
    assert tool_parent is not None
    assert tool_parent.span_id == theirs["request"].context.span_id
    (agent,) = recorder.spans
    direct, in_tool = recorder.calls
    trace_id = f"{theirs['request'].context.trace_id:032x}"
    assert {agent.trace, direct.meta.trace, in_tool.meta.trace} == {trace_id}
    assert agent.parent == f"{theirs['request'].context.span_id:016x}"
    assert direct.meta.parent == agent.id
    assert in_tool.meta.parent == f"{theirs['tool'].context.span_id:016x}"


def test_outside_of_rollouts_a_trace_is_made(recorder: Recorder) -> None:
    """Without OpenTelemetry, agents outside of rollouts share a trace with those inside them; a rollout is one."""
    outer()
    agents = {span.role: span for span in recorder.spans}
    assert agents["inner"].trace == agents["outer"].trace
    assert len(agents["outer"].trace) == 32
    with lightning.rollout():
        outer()
    assert [span.trace for span in recorder.spans[2:]] == ["", ""]


@pytest.mark.usefixtures("joined")
def test_nobody_listens(exported: InMemorySpanExporter) -> None:
    """Without a hub the user's traces are what they were."""
    with tracer.start_as_current_span("request") as request, lightning.rollout():
        outer()
    theirs = by_name(exported)
    assert {span.context.trace_id for span in theirs.values()} == {request.get_span_context().trace_id}


def test_nothing_is_left_after_shutdown(
    recorder: Recorder, exported: InMemorySpanExporter, tracer_provider: TracerProvider
) -> None:
    """After shutdown() the provider has its own processors only and scopes no longer show, not even open ones."""
    before = tracer_provider._active_span_processor._span_processors
    session.start(frozenset())
    with lightning.rollout():
        assert len(tracer_provider._active_span_processor._span_processors) == len(before) + 1
        with tracer.start_as_current_span("open"):
            lightning.shutdown()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert tracer_provider._active_span_processor._span_processors == before
    assert scope.tracer is None
    recorder.events.clear()
    sink.connect(recorder)
    with tracer.start_as_current_span("request") as request, lightning.rollout():
        outer()
    assert {span.name for span in recorder.spans} == {"invoke_agent outer", "invoke_agent inner"}
    inside = by_name(exported)["outer tool"].parent
    assert inside is not None
    assert inside.span_id == request.get_span_context().span_id


@pytest.mark.usefixtures("joined")
def test_requests_stay_as_they_are(recorder: Recorder, provider: Provider) -> None:
    """No header and no byte is added to a request, and outside of a rollout a propagator has nothing to send."""
    client = OpenAI(base_url=provider.url, api_key="k", max_retries=0)

    def ask() -> None:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])

    lightning.agent(role="x")(ask)()
    with lightning.rollout():
        lightning.agent(role="x")(ask)()
    headers: dict[str, str] = {}
    lightning.agent(role="x")(lambda: propagate.inject(headers))()
    lightning.shutdown()
    ask()
    first, second, plain = provider.requests
    assert first.raw == second.raw == plain.raw
    assert first.headers == second.headers == plain.headers
    assert headers == {}
    assert len(recorder.calls) == 2


@pytest.mark.usefixtures("joined")
def test_a_users_propagator_sends_the_rollouts_trace(recorder: Recorder) -> None:
    """What the user's own instrumentation puts on requests inside a rollout names the rollout's trace."""
    headers: dict[str, str] = {}
    with lightning.rollout() as rollout, tracer.start_as_current_span("GET"):
        propagate.inject(headers)
    assert headers["traceparent"].split("-")[1] == rollout.id


def test_without_the_sdk_nothing_is_loaded() -> None:
    """init() and rollouts import nothing of OpenTelemetry; its SDK, imported and set up later, is joined anyway."""
    code = """
import sys
import lightning_sdk as lightning
from lightning_sdk import scope, sink
from lightning_sdk.wire import Event
events = []
class To:
    def put(self, event, size): events.append(event)
lightning.init(integrations=frozenset())
sink.connect(To())
@lightning.agent(role="solver")
def solve():
    from opentelemetry import trace
    with trace.get_tracer("late").start_as_current_span("tool"): pass
with lightning.rollout(): pass
assert not [name for name in sys.modules if name.startswith("opentelemetry")], "loaded"
assert scope.tracer is None
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
with lightning.rollout(): solve()
assert len([each for each in events if each[0] == Event.SPAN]) == 1
with lightning.rollout():
    trace.set_tracer_provider(TracerProvider())
    solve()
names = [each[2][2] for each in events if each[0] == Event.SPAN]
assert names == ["invoke_agent solver", "tool", "invoke_agent solver"], names
lightning.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("joined")
def test_our_own_failures_stay_ours(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in this code reaches neither the agent nor the user's spans."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr("lightning_sdk.telemetry._Place", broken)
    monkeypatch.setattr("lightning_sdk.telemetry._copied", broken)
    with lightning.rollout():
        outer()
    assert {span.name for span in recorder.spans} == {"invoke_agent outer", "invoke_agent inner"}


def test_a_span_crosses_the_wire() -> None:
    """What an older process sends, without a trace, is read as well."""
    span = Span("1", "", "n", "r", 1, 2, "ok", "", {"a": 1}, "f" * 32)
    assert Span.unpack(span.pack()) == span
    assert Span.unpack(span.pack()[:-1]).trace == ""
