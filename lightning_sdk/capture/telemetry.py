"""Telemetry: our scopes in OpenTelemetry's context, and the spans of other instrumentation in our stream.

Loaded only once the process has OpenTelemetry's SDK, and idle until the user has set a tracer provider. Inside a
rollout, OpenTelemetry's current span is ours, with the rollout's id as the trace, so what other instrumentors record
there (tools, retrieval, HTTP) joins the rollout's tree. Outside rollouts its context is not changed, and our spans
belong to the user's trace if there is one.
"""

from __future__ import annotations

import functools
import threading
from contextvars import Token
from typing import Any, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import trace as traces
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as LiveSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from lightning_sdk.capture.patches import Patches
from lightning_sdk.stream import sink
from lightning_sdk.stream.sink import harmless
from lightning_sdk.trace import genai, scope
from lightning_sdk.trace.call import Span, root_span_id
from lightning_sdk.trace.scope import RolloutScope, Scope

#: Spans under way that are remembered. More are open only where a program forgets to end them.
_MOST_OPEN = 10_000
#: Of one span: number of attributes, characters of one, and of all together.
_ATTRIBUTES, _CHARACTERS, _ALL_CHARACTERS = 64, 4096, 32_768


def join(patches: Patches) -> None:
    """Join the traces of this process, until the patches are undone."""
    tracing = _Tracing()
    scope.tracer = tracing
    patches.on_undo(tracing.close)


class _OwnSpan(NonRecordingSpan):
    """One of our spans, as OpenTelemetry's current one: others begin under it, and it is exported by the hub."""

    def __init__(self, rollout: RolloutScope, span: str) -> None:
        self.rollout, self.span = rollout, span
        number = int(span or root_span_id(rollout.key), 16)
        sampled = TraceFlags(TraceFlags.SAMPLED)
        super().__init__(SpanContext(int(rollout.id, 16), number, is_remote=False, trace_flags=sampled))


class _ForeignSpan(NamedTuple):
    """A span of another instrumentor that is under way."""

    rollout: RolloutScope | None
    home: str
    """The span of ours that it began in, '' at the top."""
    role: str


class _Tracing(SpanProcessor):
    """Shows scopes to OpenTelemetry (`scope.Tracer`) and gets its spans."""

    def __init__(self) -> None:
        self._looked_at: object = None
        self._providers: list[Any] = []
        self._open: dict[int, _ForeignSpan] = {}
        self._left_open: dict[str, Context] = {}
        """Span of ours -> the context in which a generator's step left it, with a span of another instrumentor."""
        self._lock = threading.Lock()

    # --- our scopes in OpenTelemetry's context

    def enter(self, scope: Scope) -> Any:
        return harmless("joining an OpenTelemetry trace", functools.partial(self._enter, scope))

    def parent_span(self, scope: Scope) -> tuple[str, str]:
        found = harmless("finding the OpenTelemetry span around a call", functools.partial(self._around, scope))
        return found or (scope.trace, scope.span)

    def _enter(self, scope: Scope) -> Any:
        self._watch_provider()
        if scope.rollout is None or not self._providers or not sink.is_listening():
            return None
        before, around = contexts.get_current(), traces.get_current_span()
        if self._inside(around, scope):
            return None
        left = self._left_open.pop(scope.span, None)
        if left is not None and traces.get_current_span(left).is_recording():
            shown = left
        else:
            shown = traces.set_span_in_context(_OwnSpan(scope.rollout, scope.span), before)
            if not scope.span:
                self._link(scope.rollout, around.get_span_context())
        return functools.partial(self._leave, contexts.attach(shown), scope, before, shown)

    def _leave(self, token: Token[Context], scope: Scope, before: Context, shown: Context, elsewhere: bool) -> None:
        here = contexts.get_current()
        if elsewhere:
            if here is shown:
                contexts.attach(before)
            return
        span = traces.get_current_span()
        if scope.span and not isinstance(span, _OwnSpan) and self._inside(span, scope):
            # A generator yields inside a span of another instrumentor: its next step goes on there.
            _put(self._left_open, scope.span, here)
        contexts.detach(token)

    def _inside(self, span: traces.Span, scope: Scope) -> bool:
        """Whether OpenTelemetry's current span began in this very scope, so that it is the nearer of the two."""
        if isinstance(span, _OwnSpan):
            return span.rollout is scope.rollout and span.span == scope.span
        found = self._open.get(span.get_span_context().span_id)
        return found is not None and found.rollout is scope.rollout and found.home == scope.span

    def _around(self, scope: Scope) -> tuple[str, str] | None:
        self._watch_provider()
        span = traces.get_current_span()
        if not span.is_recording():
            return None
        known = span.get_span_context().span_id in self._open
        if not (self._inside(span, scope) if known else scope.rollout is None and not scope.span):
            return None
        at = span.get_span_context()
        return "" if scope.rollout is not None else f"{at.trace_id:032x}", f"{at.span_id:016x}"

    def _link(self, rollout: RolloutScope, around: SpanContext) -> None:
        """Tell which span of the user's own trace the rollout was started in."""
        if around.is_valid and around.trace_id != int(rollout.id, 16):
            at = {genai.LINK_TRACE: f"{around.trace_id:032x}", genai.LINK_SPAN: f"{around.span_id:016x}"}
            sink.send_span(
                rollout,
                Span(
                    id=root_span_id(rollout.key),
                    parent="",
                    name=genai.INVOKE_WORKFLOW,
                    role="",
                    started_ns=0,
                    ended_ns=0,
                    status="ok",
                    error="",
                    attributes=at,
                ),
            )

    # --- its spans in our stream

    def _watch_provider(self) -> None:
        """Listen to the global tracer provider once there is one; it may be set at any time."""
        provider = traces.get_tracer_provider()
        if provider is self._looked_at:
            return
        with self._lock:
            self._looked_at = provider
            if hasattr(provider, "add_span_processor") and not any(each is provider for each in self._providers):
                provider.add_span_processor(self)
                self._providers.append(provider)

    def on_start(self, span: LiveSpan, parent_context: Context | None = None) -> None:
        if self._providers and sink.is_listening():
            harmless("following a span of another instrumentor", functools.partial(self._begin, span, parent_context))

    def _begin(self, span: LiveSpan, context: Context | None) -> None:
        here = scope.effective_scope()
        around = traces.get_current_span(context)
        rollout, home = here.rollout, here.span
        if isinstance(around, _OwnSpan):
            if around.rollout is not rollout:
                rollout, home = around.rollout, around.span
        elif (parent := self._open.get(around.get_span_context().span_id)) and parent.rollout is not rollout:
            rollout, home = parent.rollout, parent.home
        _put(self._open, span.get_span_context().span_id, _ForeignSpan(rollout, home, here.role))

    def on_end(self, span: ReadableSpan) -> None:
        if self._providers:
            harmless("recording a span of another instrumentor", functools.partial(self._end, span))

    def _end(self, span: ReadableSpan) -> None:
        at = span.get_span_context()
        found = self._open.pop(at.span_id, None) if at is not None else None
        if at is None or found is None:
            return
        left = self._left_open.get(found.home)
        if left is not None and traces.get_current_span(left).get_span_context().span_id == at.span_id:
            self._left_open.pop(found.home, None)
        if found.rollout is not None and sink.is_listening():
            copy, size = _copy_span(span, at, found)
            sink.send_span(found.rollout, copy, size)

    def close(self) -> None:
        """Leave OpenTelemetry as if we had never been there. Scopes that are still entered undo themselves."""
        if scope.tracer is self:
            scope.tracer = None
        for provider in self._providers:
            harmless("leaving OpenTelemetry", functools.partial(_remove, provider, self))
        self._providers, self._looked_at = [], None
        self._open.clear()
        self._left_open.clear()


def _copy_span(span: ReadableSpan, at: SpanContext, found: _ForeignSpan) -> tuple[Span, int]:
    """The span as one of the rollout's, and its approximate size in bytes."""
    assert found.rollout is not None
    parent = found.home
    if span.parent is not None and span.parent.trace_id == at.trace_id and at.trace_id == int(found.rollout.id, 16):
        parent = f"{span.parent.span_id:016x}"
        if parent == root_span_id(found.rollout.key):
            parent = ""
    attributes, size = _attributes(span)
    failed = span.status.status_code is StatusCode.ERROR
    error = (span.status.description or _exception(span) or "error")[:_CHARACTERS] if failed else ""
    begun = span.start_time or 0
    return Span(
        id=f"{at.span_id:016x}",
        parent=parent,
        name=span.name[:_CHARACTERS],
        role=found.role,
        started_ns=begun,
        ended_ns=span.end_time or begun,
        status="error" if failed else "ok",
        error=error,
        attributes=attributes,
    ), 300 + size


def _exception(span: ReadableSpan) -> str:
    for event in reversed(span.events):
        if event.name == "exception" and event.attributes:
            return f"{event.attributes.get('exception.type', '')}: {event.attributes.get('exception.message', '')}"
    return ""


def _attributes(span: ReadableSpan) -> tuple[dict[str, Any], int]:
    """What fits of a span's attributes, with who made it."""
    maker = span.instrumentation_scope
    kept: dict[str, Any] = {genai.FOREIGN: maker.name if maker is not None else ""}
    size = 0
    for name, value in (span.attributes or {}).items():
        if len(kept) > _ATTRIBUTES or size > _ALL_CHARACTERS:
            break
        kept[name] = _plain(value)
        size += len(name) + (len(str(kept[name])) if not isinstance(value, bool | int | float) else 9)
    return kept, size


def _plain(value: Any) -> Any:
    """An attribute's value as msgpack carries it, cut to size."""
    if isinstance(value, bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value[: _CHARACTERS // 64]]
    return str(value)[:_CHARACTERS]


def _put(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember, and forget the oldest of too many."""
    memory[key] = value
    if len(memory) > _MOST_OPEN:
        memory.pop(next(iter(memory)), None)


def _remove(provider: Any, processor: SpanProcessor) -> None:
    """Take the processor out again. OpenTelemetry has no public way; where this one fails it stays and does nothing."""
    active = getattr(provider, "_active_span_processor", None)
    if active is None:  # a provider around another one, such as logfire's
        return
    with active._lock:
        active._span_processors = tuple(each for each in active._span_processors if each is not processor)
