"""OpenTelemetry where our reach ends: the user's own traces, requests, no hub, no SDK, after shutdown."""

import subprocess
import sys
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.stream import sink
from lightning_sdk.trace import scope
from lightning_sdk.trace.call import Span
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.traced import by_name, outer, root_of, tracer


@pytest.mark.usefixtures("openai_session")
def test_the_users_trace_is_linked(recorder: Recorder, exporter: InMemorySpanExporter) -> None:
    """A rollout is a separate trace; the trace that it was started in is linked, and goes on afterwards."""
    with tracer.start_as_current_span("request") as request:
        with lightning.rollout(), tracer.start_as_current_span("tool"):
            pass
        assert trace.get_current_span() is request
        with tracer.start_as_current_span("response"):
            pass
    theirs = by_name(exporter)
    at = theirs["request"].context
    (link,) = [span for span in recorder.spans if span.id == root_of(recorder)]
    assert link.attributes == {
        "lightning.link.trace_id": f"{at.trace_id:032x}",
        "lightning.link.span_id": f"{at.span_id:016x}",
    }
    assert theirs["response"].context.trace_id == at.trace_id != theirs["tool"].context.trace_id


@pytest.mark.usefixtures("openai_session")
@pytest.mark.parametrize("early", [True, False])
def test_outside_of_rollouts_we_join_the_users_trace(
    recorder: Recorder, exporter: InMemorySpanExporter, provider: Provider, early: bool
) -> None:
    """The user's spans are not touched; ours are children of theirs and carry their trace."""
    client = OpenAI(base_url=provider.url, api_key="k", max_retries=0)

    @lightning.agent(role="observed")
    def observe() -> None:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a"}])
        with tracer.start_as_current_span("tool"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "b"}])

    if early:  # the provider is listened to from the first scope on, else only once the request is under way
        with lightning.rollout():
            pass
    with tracer.start_as_current_span("request"):
        observe()
    theirs = by_name(exporter)
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


@pytest.mark.usefixtures("openai_session")
def test_nobody_listens(exporter: InMemorySpanExporter) -> None:
    """Without a hub the user's traces are what they were."""
    with tracer.start_as_current_span("request") as request, lightning.rollout():
        outer()
    theirs = by_name(exporter)
    assert {span.context.trace_id for span in theirs.values()} == {request.get_span_context().trace_id}


def test_nothing_is_left_after_shutdown(
    recorder: Recorder, exporter: InMemorySpanExporter, tracer_provider: TracerProvider
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
    inside = by_name(exporter)["outer tool"].parent
    assert inside is not None
    assert inside.span_id == request.get_span_context().span_id


@pytest.mark.usefixtures("openai_session")
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


@pytest.mark.usefixtures("openai_session")
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
from lightning_sdk.stream import sink
from lightning_sdk.trace import scope
from lightning_sdk.stream.wire import Event
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


@pytest.mark.usefixtures("openai_session")
def test_our_own_failures_stay_ours(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in this code reaches neither the agent nor the user's spans."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr("lightning_sdk.capture.telemetry._OwnSpan", broken)
    monkeypatch.setattr("lightning_sdk.capture.telemetry._copy_span", broken)
    with lightning.rollout():
        outer()
    assert {span.name for span in recorder.spans} == {"invoke_agent outer", "invoke_agent inner"}


def test_a_span_crosses_the_wire() -> None:
    """What an older process sends, without a trace, is read as well."""
    span = Span(
        id="1",
        parent="",
        name="n",
        role="r",
        started_ns=1,
        ended_ns=2,
        status="ok",
        error="",
        attributes={"a": 1},
        trace="f" * 32,
    )
    assert Span.unpack(span.pack()) == span
    assert Span.unpack(span.pack()[:-1]).trace == ""
