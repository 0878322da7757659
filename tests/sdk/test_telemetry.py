"""OpenTelemetry beside us: its spans join the rollout's tree, and calls lie in its tools."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lightning_sdk as lightning
from lightning_sdk.trace import scope
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.traced import by_name, outer, tracer, tree


@pytest.mark.usefixtures("openai_session")
def test_foreign_spans_lie_in_the_agents_that_made_them(recorder: Recorder, exporter: InMemorySpanExporter) -> None:
    """Agents and tools alternate in one tree, in the stream and at the user's exporter."""
    with lightning.rollout() as rollout:
        outer()
    assert tree(recorder) == {
        "invoke_agent outer": "",
        "outer tool": "invoke_agent outer",
        "invoke_agent inner": "outer tool",
        "inner tool": "invoke_agent inner",
    }
    theirs = by_name(exporter)
    ours = {span.name: span.id for span in recorder.spans}
    for name, parent in (("outer tool", "invoke_agent outer"), ("inner tool", "invoke_agent inner")):
        found = theirs[name]
        assert found.parent is not None
        assert f"{found.context.trace_id:032x}" == rollout.id
        assert f"{found.parent.span_id:016x}" == ours[parent]


@pytest.mark.usefixtures("openai_session")
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


@pytest.mark.usefixtures("openai_session")
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


@pytest.mark.usefixtures("openai_session")
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
        "invoke_agent caller": "",
        "tool": "invoke_agent caller",
        "chat caller": "tool",
    }


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


@pytest.mark.usefixtures("openai_session")
def test_generators_never_leak_and_never_forget(recorder: Recorder) -> None:
    """Between two steps the consumer's context is its own; a span that a generator holds across them stays."""
    with lightning.rollout():
        with tracer.start_as_current_span("consumer") as mine:
            for _ in stepper():
                assert trace.get_current_span() is mine
        with tracer.start_as_current_span("after"):
            pass
    assert tree(recorder) == {
        "consumer": "",
        "invoke_agent stepper": "consumer",
        "whole": "invoke_agent stepper",
        **STEPPED,
        "after": "",
    }


@pytest.mark.usefixtures("openai_session")
def test_async_generators_too(recorder: Recorder) -> None:
    """The same between the steps of an async generator."""

    async def consume() -> None:
        with lightning.rollout(), tracer.start_as_current_span("consumer") as mine:
            async for _ in astepper():
                assert trace.get_current_span() is mine

    asyncio.run(consume())
    assert tree(recorder) == {
        "consumer": "",
        "invoke_agent astepper": "consumer",
        "whole": "invoke_agent astepper",
        **STEPPED,
    }


@pytest.mark.usefixtures("openai_session")
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
        "invoke_agent a": "",
        "invoke_agent b": "",
        "tool of a": "invoke_agent a",
        "tool of b": "invoke_agent b",
    }


@pytest.mark.usefixtures("openai_session")
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
        "invoke_agent starter": "",
        "in a thread": "invoke_agent starter",
        "in a pool": "invoke_agent starter",
    }


@pytest.mark.usefixtures("openai_session")
def test_a_context_handed_on_by_hand_is_followed(recorder: Recorder) -> None:
    """A span begun in a thread that knows nothing of us, with a context of the rollout, is the rollout's."""
    with lightning.rollout(), tracer.start_as_current_span("parent") as parent:
        context = trace.set_span_in_context(parent)

        def elsewhere() -> None:
            with scope.use_scope(scope.Scope()), tracer.start_as_current_span("child", context=context):
                pass

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert tree(recorder) == {"parent": "", "child": "parent"}


@pytest.mark.usefixtures("openai_session")
def test_a_span_of_another_trace_is_hung_in(recorder: Recorder) -> None:
    """A span that is started as the root of a new trace inside an agent is kept as that agent's."""

    @lightning.agent(role="loner")
    def loner() -> None:
        from opentelemetry.context import Context  # noqa: PLC0415 - named where it is the point

        with tracer.start_as_current_span("root of its own", context=Context()):
            pass

    with lightning.rollout():
        loner()
    assert tree(recorder) == {"invoke_agent loner": "", "root of its own": "invoke_agent loner"}
