"""OpenTelemetry and Datadog carry contexts of theirs into threads and pools: all arrive, and all can be undone."""

import pytest

BOTH = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from tests.sdk.recorder import Recorder
import lightning_sdk as lightning
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import current_scope

def opentelemetry():
    from opentelemetry import trace
    from opentelemetry.instrumentation.threading import ThreadingInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
    tracer, theirs = trace.get_tracer("theirs"), ThreadingInstrumentor()
    here = lambda: trace.get_current_span().get_span_context().trace_id
    return theirs.instrument, theirs.uninstrument, lambda: tracer.start_as_current_span("outer"), here

def datadog():
    from ddtrace import patch
    from ddtrace.contrib.internal.futures.patch import unpatch
    from ddtrace.trace import tracer
    here = lambda: (span := tracer.current_trace_context()) and span.trace_id
    return lambda: patch(futures=True), unpatch, lambda: tracer.trace("outer"), here

tool, first, undone = sys.argv[1:]
begin, end, span, here = {"opentelemetry": opentelemetry, "datadog": datadog}[tool]()
sink.connect(Recorder())
for act in (lightning.init, begin) if first == "ours" else (begin, lightning.init):
    act()

def work(): return current_scope().role, here()

def pool():
    with ThreadPoolExecutor(1) as pool: return pool.submit(work).result(10)

def thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(work()))
    thread.start(); thread.join(10)
    return seen[0]

@lightning.agent(role="solver")
def solve():
    with span():
        return here(), [pool(), *([thread()] if tool == "opentelemetry" else [])]

def look():
    trace, seen = solve()
    return {role for role, _ in seen}, {found == trace for _, found in seen}

with lightning.rollout():
    assert look() == ({"solver"}, {True}), look()
    (lightning.shutdown if undone == "ours" else end)()
    # Inside a rollout our own span is OpenTelemetry's current one, in threads too.
    ours_alone = {"solver"}, {tool == "opentelemetry"}
    assert look() == (({""}, {True}) if undone == "ours" else ours_alone), look()
    (end if undone == "ours" else lightning.shutdown)()
    assert look() == ({""}, {False}), look()
print("done")
"""


@pytest.mark.parametrize("undone", ["ours", "theirs"])
@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("tool", ["opentelemetry", "datadog"])
def test_both_contexts_arrive(in_new_process, tool: str, first: str, undone: str) -> None:
    """Whichever is set up first, and whichever is undone first, the other one goes on; in the end none is left."""
    assert in_new_process(BOTH, tool, first, undone).strip().splitlines()[-1] == "done"
