"""One attempt's events as OpenTelemetry spans with GenAI names: a root, its agents, and its calls.

Loaded only when spans are exported: it needs OpenTelemetry's SDK, which the `otlp` extra installs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from lightning_hub.decoding.events import DecodedEvent, Unusable, refuse
from lightning_hub.export import messages as content
from lightning_hub.storage.attempts import StoredAttempt
from lightning_sdk.stream.events import RewardEvent
from lightning_sdk.stream.wire import Event, unpack_floats, unpack_ints
from lightning_sdk.trace import genai
from lightning_sdk.trace.call import Call, Span, root_span_id

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OPERATIONS = (
    ("/chat/completions", genai.CHAT),
    ("/completions", genai.TEXT_COMPLETION),
    ("/embeddings", genai.EMBEDDINGS),
)
#: What is wrong with an event that another version sent, or a stranger.
MALFORMED = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class SpanContents:
    """What goes onto exported spans beyond names, numbers and times."""

    messages: bool = False
    tokens: bool = False
    foreign: bool = False
    """Also spans that other instrumentation made, which the user's own exporter sends elsewhere."""


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A span while it is put together."""

    trace: str
    id: str
    parent: str
    name: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    error: str = ""
    kind: SpanKind = SpanKind.INTERNAL


class Collector:
    """Where spans go. `send` blocks until they are there or have failed, some seconds at most."""

    def __init__(self, endpoint: str | None) -> None:
        """None: as OpenTelemetry's environment variables say. ValueError for one that they give a wrong value."""
        self._exporter = OTLPSpanExporter(endpoint=endpoint)

    def send(self, spans: list[ReadableSpan]) -> bool:
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """End a `send` that waits to try again. Any thread."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class Translator:
    """Events in, spans out; what cannot be read is counted in `malformed`."""

    def __init__(self, workflow: str, version: str, contents: SpanContents) -> None:
        self._workflow, self._contents = workflow, contents
        self._resource = _resource()
        self._scope = InstrumentationScope("lightning_sdk", version)
        self.malformed = 0

    def rollout(self, attempt: StoredAttempt, events: Iterable[DecodedEvent]) -> list[ReadableSpan]:
        """The tree of one attempt. Its trace is the rollout's id, its root the attempt as a whole."""
        root = self._root(attempt)
        drafts, links, rewards = [root], list[Link](), list[tuple[str, SpanEvent]]()
        for event in events:
            try:
                if isinstance(event, RewardEvent):
                    rewards.append(_reward(event, self._contents.messages))
                elif isinstance(event, Span) and event.id == root.id:
                    links.append(_link(event))
                elif (draft := self._draft(event)) is not None:
                    drafts.append(replace(draft, trace=attempt.id, parent=draft.parent or root.id))
            except MALFORMED:
                self.malformed += 1
        # The agent's clock and the hub's may differ, and a root that does not hold its children looks broken.
        root.started_ns = min(draft.started_ns for draft in drafts)
        root.ended_ns = max(draft.ended_ns for draft in drafts)
        known = {draft.id for draft in drafts}
        found = []
        for draft in drafts:
            mine = [each for owner, each in rewards if (owner if owner in known else root.id) == draft.id]
            found += self._build_span(draft, mine, links if draft is root else [])
        return found

    def strays(self, events: Iterable[DecodedEvent]) -> list[ReadableSpan]:
        """Spans outside of rollouts: in the user's trace, or in one that the outermost agent began."""
        found = []
        for event in events:
            try:
                draft = self._draft(event)
            except MALFORMED:
                self.malformed += 1
                continue
            if draft is not None:
                found += self._build_span(replace(draft, trace=draft.trace or draft.id * 2), [], [])
        return found

    def _root(self, attempt: StoredAttempt) -> _Draft:
        started = int((attempt.started or 0.0) * 1e9)
        return _Draft(
            trace=attempt.id,
            id=root_span_id(attempt.key),
            parent="",
            name=f"{genai.INVOKE_WORKFLOW} {self._workflow}",
            started_ns=started,
            ended_ns=max(started, int((attempt.ended or 0.0) * 1e9)),
            attributes={
                genai.OPERATION: genai.INVOKE_WORKFLOW,
                genai.WORKFLOW_NAME: self._workflow,
                genai.CONVERSATION: attempt.id,
                genai.ROLLOUT: attempt.id,
                genai.ATTEMPT: attempt.attempt,
                genai.MODE: attempt.mode,
                genai.STATUS: attempt.status.value,
                genai.GROUP: attempt.group,
                genai.TASK_ID: attempt.task_id,
                **({genai.ERROR_TYPE: attempt.status.value} if attempt.status != "ok" else {}),
            },
            error="" if attempt.status == "ok" else attempt.error or attempt.status.value,
        )

    def _draft(self, event: DecodedEvent) -> _Draft | None:
        match event:
            case Call():
                return self._call(event)
            case Span():
                is_foreign = genai.FOREIGN in event.attributes
                return None if is_foreign and not self._contents.foreign else _agent(event)
            case Unusable(kind=Event.CALL | Event.SPAN | Event.REWARD):
                raise ValueError(event.why)
        return None

    def _call(self, call: Call) -> _Draft:
        meta, request = call.meta, _request(call.request)
        model = str(request.get("model") or call.model)
        operation = next((name for path, name in _OPERATIONS if meta.path.endswith(path)), genai.CHAT)
        error = meta.error or call.problem if meta.status == "error" or meta.http_status >= 400 else ""
        attributes: dict[str, Any] = {
            genai.OPERATION: operation,
            genai.PROVIDER: _provider(call),
            genai.AGENT_NAME: meta.role,
            genai.ROLE: meta.role,
            genai.FRAMEWORK: meta.framework,
            genai.TRAINABLE: meta.trainable,
            **({genai.CANDIDATE: meta.candidate} if meta.candidate else {}),
            genai.REQUEST_MODEL: model,
            **_request_attributes(request, meta.streamed),
            **_reply_attributes(call),
        }
        if error:
            attributes[genai.ERROR_TYPE] = str(meta.http_status) if meta.http_status >= 400 else error.split(":")[0]
        if self._contents.messages:
            attributes |= content.messages(request, call.choices)
        if self._contents.tokens:
            attributes |= _tokens(call)
        return _Draft(
            trace=meta.trace,
            id=meta.id,
            parent=meta.parent,
            name=f"{operation} {model}".strip(),
            started_ns=meta.started_ns,
            ended_ns=meta.ended_ns,
            attributes=attributes,
            error=error,
            kind=SpanKind.CLIENT,
        )

    def _build_span(self, draft: _Draft, events: list[SpanEvent], links: list[Link]) -> list[ReadableSpan]:
        """The span itself; none if its ids are not what OpenTelemetry takes."""
        try:
            at = _context(draft.trace, draft.id)
            parent = _context(draft.trace, draft.parent) if draft.parent else None
        except MALFORMED:
            self.malformed += 1
            return []
        status = Status(StatusCode.ERROR, draft.error) if draft.error else Status()
        attributes = {name: value for name, value in draft.attributes.items() if value not in ("", None, [])}
        return [
            ReadableSpan(
                draft.name,
                at,
                parent,
                self._resource,
                attributes,
                events,
                links,
                draft.kind,
                None,
                status,
                draft.started_ns,
                draft.ended_ns,
                self._scope,
            )
        ]


def _resource() -> Resource:
    """What the user's environment says of this service, with a name if it has none."""
    found = Resource.create()
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found.merge(Resource({SERVICE_NAME: "lightning-sdk"})) if unnamed else found


def _context(trace: str, span: str) -> SpanContext:
    context = SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=_SAMPLED)
    if not context.is_valid:
        raise ValueError(f"trace {trace!r}, span {span!r}")
    return context


def _agent(span: Span) -> _Draft:
    attributes = {**span.attributes, genai.ROLE: span.role}
    if span.status == "error":
        attributes[genai.ERROR_TYPE] = span.error.split(":")[0] or "error"
    error = (span.error or "error") if span.status == "error" else ""
    return _Draft(
        trace=span.trace,
        id=span.id,
        parent=span.parent,
        name=span.name,
        started_ns=span.started_ns,
        ended_ns=span.ended_ns,
        attributes=attributes,
        error=error,
    )


def _reward(event: RewardEvent, with_reason: bool) -> tuple[str, SpanEvent]:
    """The span that a reward belongs to, '' for the root, and the event that tells of it. A reason may quote the
    answer."""
    refused = refuse(event.value, event.role, event.name)
    attributes: dict[str, str | float] = {genai.EVALUATION_NAME: event.name}
    if refused:
        attributes[genai.EVALUATION_EXPLANATION] = refused
    else:
        attributes[genai.EVALUATION_SCORE] = float(event.value)
        if event.why and with_reason:
            attributes[genai.EVALUATION_EXPLANATION] = event.why
    if event.role:
        attributes[genai.ROLE] = event.role
    return event.span, SpanEvent(genai.EVALUATION, attributes, event.time_ns)


def _link(span: Span) -> Link:
    return Link(_context(span.attributes[genai.LINK_TRACE], span.attributes[genai.LINK_SPAN]))


def _request(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _provider(call: Call) -> str:
    if call.meta.trainable:
        return "lightning"  # the engine that training serves, whatever the agent's client was made for
    return "anthropic" if call.meta.path.endswith("/messages") else "openai"


def _request_attributes(request: dict[str, Any], streamed: bool) -> dict[str, Any]:
    found = {
        name: request[field] for field, name in genai.REQUEST.items() if isinstance(request.get(field), int | float)
    }
    stop = request.get("stop") or request.get("stop_sequences")
    if stop:
        found[genai.STOP_SEQUENCES] = [stop] if isinstance(stop, str) else [str(each) for each in stop]
    if isinstance(request.get("n"), int) and request["n"] != 1:
        found[genai.CHOICE_COUNT] = request["n"]
    if streamed:
        found[genai.STREAM] = True
    return found


def _reply_attributes(call: Call) -> dict[str, Any]:
    versions = sorted({version for choice in call.choices for version, _ in choice.versions})
    found: dict[str, Any] = {
        genai.RESPONSE_ID: call.response_id,
        genai.RESPONSE_MODEL: call.model,
        genai.VERSIONS: versions,
        genai.FINISH_REASONS: [choice.finish_reason for choice in call.choices if choice.finish_reason],
        genai.PROBLEM: call.problem,
    }
    if call.choices:
        found |= {genai.INPUT_TOKENS: call.input_tokens, genai.OUTPUT_TOKENS: call.output_tokens}
    if 0 < call.meta.http_status != 200:
        found[genai.HTTP_STATUS] = call.meta.http_status
    if call.meta.status == "cancelled":
        found[genai.CANCELLED] = True
    return found


def _tokens(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {genai.PROMPT_IDS: list(unpack_ints(call.prompt_ids))}
    for choice in call.choices:
        found[genai.COMPLETION_IDS.format(choice.index)] = list(unpack_ints(choice.token_ids))
        found[genai.LOGPROBS.format(choice.index)] = list(unpack_floats(choice.logprobs))
    return found
