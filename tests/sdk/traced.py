"""A process with OpenTelemetry set up, as a user's: fixtures, agents with tools, and a rollout's tree."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import root_span_id
from tests.sdk.recorder import Recorder

_exporter = InMemorySpanExporter()
tracer = trace.get_tracer("retrieval")


@pytest.fixture(scope="session")
def tracer_provider() -> Iterator[TracerProvider]:
    """The user's own provider. The global one can be set once in a process, so all tests share it."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    yield provider


@pytest.fixture
def exporter(tracer_provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    """What the user's own exporter got."""
    _exporter.clear()
    yield _exporter
    _exporter.clear()


@pytest.fixture
def openai_session(tracer_provider: TracerProvider) -> Iterator[None]:
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
