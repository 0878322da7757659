"""Other people's OpenTelemetry instrumentors beside us: OpenLLMetry, OpenInference, and context in threads."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.frameworks.same import assert_all_trained, assert_same_bytes

pytest.importorskip("opentelemetry.instrumentation.openai")
from openai import AsyncOpenAI, OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry import trace
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lightning_sdk as lightning

ASKED = [{"role": "user", "content": "What is 12 + 30?"}]
#: OpenLLMetry goes on after its uninstrument(), so tests look at the spans of the one that they are about.
MAKERS = {"OpenLLMetry": OpenLLMetry, "OpenInference": OpenInference}
SCOPES = {"OpenLLMetry": "opentelemetry.instrumentation.openai", "OpenInference": "openinference"}
tracer = trace.get_tracer("tools")
pytestmark = pytest.mark.last


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """The user's own exporter, behind the process's one tracer provider."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def instrument(exporter: InMemorySpanExporter) -> Iterator[Callable[[Any], None]]:
    """Turn an instrumentor on until the end of the test."""
    on: list[Any] = []

    def turn_on(kind: Any) -> None:
        on.append(kind())
        on[-1].instrument()

    exporter.clear()
    yield turn_on
    for each in on:
        each.uninstrument()


@lightning.agent(role="solver", trainable=True)
def solve(client: OpenAI) -> str:
    with tracer.start_as_current_span("execute_tool search"):
        return client.chat.completions.create(model="gpt-4o-mini", messages=ASKED).choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
async def asolve(client: AsyncOpenAI) -> str:
    with tracer.start_as_current_span("execute_tool search"):
        reply = await client.chat.completions.create(model="gpt-4o-mini", messages=ASKED)
        return reply.choices[0].message.content or ""


def above(span: str, spans: dict[str, Any]) -> list[str]:
    """Names of the spans from the top down to the one with this id."""
    names: list[str] = []
    while span in spans:
        names.insert(0, spans[span].name)
        span = spans[span].parent
    return names


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("first", ["they", "we"])
def test_their_spans_join_the_tree(maker, first, wire, capture, instrument, exporter) -> None:
    """In either order: their span of a trained call lies in the tool, ours is complete, and both exports agree."""
    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    if first == "they":
        instrument(MAKERS[maker])
    capture.init()
    if first == "we":
        instrument(MAKERS[maker])
    run = capture(lambda: solve(client), trainable=False)
    assert_all_trained(run, wire, roles=["solver"])
    exported = exporter.get_finished_spans()
    theirs = [span for span in exported if span.instrumentation_scope.name.startswith(SCOPES[maker])]
    spans = {span.id: span for span in run.spans}
    assert theirs
    for each in theirs:
        copied = spans[f"{each.context.span_id:016x}"]
        assert copied.attributes["otel.scope.name"] == each.instrumentation_scope.name
        assert copied.parent == f"{each.parent.span_id:016x}"
        assert above(copied.parent, spans)[:2] == ["invoke_agent solver", "execute_tool search"]
    assert above(run.calls[0].raw.meta.parent, spans)[:2] == ["invoke_agent solver", "execute_tool search"]
    assert len({span.context.trace_id for span in exported}) == 1
    assert not [name for span in exported for name in span.attributes or {} if "token_ids" in name]


@pytest.mark.parametrize("maker", MAKERS)
def test_async_too(maker, wire, capture, instrument) -> None:
    """The same in an event loop, twice at once."""

    async def both() -> None:
        async with AsyncOpenAI(base_url=wire.url, api_key="mine", max_retries=0) as client:
            await asyncio.gather(asolve(client), asolve(client))

    instrument(MAKERS[maker])
    run = capture(both, trainable=False)
    assert_all_trained(run, wire, roles=["solver", "solver"])
    spans = {span.id: span for span in run.spans}
    tools = [span for span in run.spans if span.name == "execute_tool search"]
    assert [spans[tool.parent].name for tool in tools] == ["invoke_agent solver"] * 2
    assert len({tool.parent for tool in tools}) == 2
    inside = [span for span in run.spans if span.parent in {tool.id for tool in tools}]
    assert len({span.parent for span in inside}) == 2


@pytest.mark.parametrize("first", ["they", "we"])
def test_threads_keep_the_tool(first, wire, capture, instrument) -> None:
    """With OpenTelemetry's own carrying of context, a call in a thread lies in the tool that started the thread."""
    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)

    @lightning.agent(role="starter", trainable=True)
    def start() -> None:
        with tracer.start_as_current_span("execute_tool search"):
            ask = lambda: client.chat.completions.create(model="gpt-4o-mini", messages=ASKED)  # noqa: E731
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()

    if first == "they":
        instrument(ThreadingInstrumentor)
    capture.init()
    if first == "we":
        instrument(ThreadingInstrumentor)
    run = capture(start, trainable=False)
    assert_all_trained(run, wire, roles=["starter"])
    spans = {span.id: span for span in run.spans}
    assert above(run.calls[0].raw.meta.parent, spans)[:2] == ["invoke_agent starter", "execute_tool search"]


@pytest.mark.parametrize("maker", MAKERS)
def test_training_off(maker, wire, capture, instrument) -> None:
    """With their instrumentor on and nothing trained, the same bytes go to the provider as without us.

    OpenLLMetry puts its own `traceparent` on each request, with us and without.
    """
    instrument(MAKERS[maker])
    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    solve(client)
    before = wire.clear()
    capture(lambda: solve(client), train=False)
    after = wire.clear()
    assert_same_bytes(before, after, varying=["traceparent"])
    assert {name for each in before for name, _ in each.headers} == {name for each in after for name, _ in each.headers}


def test_nothing_is_left(wire, capture, instrument) -> None:
    """After shutdown() their spans are in traces of the user's again, and none reaches us."""
    instrument(OpenLLMetry)
    client = OpenAI(base_url=wire.url, api_key="mine", max_retries=0)
    run = capture(lambda: solve(client), trainable=False)
    assert run.spans
    lightning.shutdown()
    with tracer.start_as_current_span("request") as request:
        solve(client)
        inner = trace.get_current_span()
    assert inner is request
    assert trace.get_current_span() is trace.INVALID_SPAN
