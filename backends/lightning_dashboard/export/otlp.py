"""OTLP as JSON lines, as a collector's file receiver reads them: each line has the spans of some rollouts.

In the protocol's JSON, ids are hexadecimal and enumerations are numbers, which is not how protobuf writes its messages.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_dashboard.attempt_reader import ReadAttempt
from lightning_dashboard.export.output import WrittenOutput, unfinished_file
from lightning_dashboard.export.packages import require_package
from lightning_dashboard.export.records import ExportedRollout
from lightning_hub.decoding.events import DecodedEvent
from lightning_hub.storage.attempts import StoredAttempt
from lightning_sdk.stream.events import RewardEvent
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Status

OPTION = "--otlp"
_SPANS_AT_ONCE = 512
_IDS = ("traceId", "spanId", "parentSpanId")


class OtlpFile:
    """Rollouts that are over, as traces: their agents, calls with their messages, tools, and rewards as events."""

    def __init__(self, path: Path) -> None:
        """SettingError if it cannot be made, or without OpenTelemetry's packages."""
        self._spans = require_package("lightning_hub.export.spans", OPTION)
        self._encode = require_package("opentelemetry.exporter.otlp.proto.common.trace_encoder", OPTION).encode_spans
        self._to_dict = require_package("google.protobuf.json_format", OPTION).MessageToDict
        self._file = unfinished_file(path, OPTION)
        self._lines = self._file.draft.open("w", encoding="ascii")
        self._translators: dict[str, Any] = {}
        self._waiting: list[Any] = []
        self._counts = {"rollouts": 0, "spans": 0}

    def add(self, exported: ExportedRollout) -> None:
        attempt = exported.read.attempt
        if attempt.status not in list(Status):  # it is under way, and a trace without an end would seem damaged
            return
        name = exported.run.name
        if name not in self._translators:
            contents = self._spans.SpanContents(messages=True, foreign=True)
            self._translators[name] = self._spans.Translator(name, version("lightning-agent-sdk"), contents)
        spans = self._translators[name].rollout(_as_stored_attempt(exported.read), _events(exported.read))
        self._counts["rollouts"] += 1
        self._counts["spans"] += len(spans)
        self._waiting += spans
        if len(self._waiting) >= _SPANS_AT_ONCE:
            self._flush()

    def finish(self) -> WrittenOutput:
        self._flush()
        self._lines.close()
        return WrittenOutput(self._file.path, self._counts, self._file.finish())

    def discard(self) -> None:
        self._lines.close()
        self._file.discard()

    def _flush(self) -> None:
        if self._waiting:
            request = self._to_dict(self._encode(self._waiting), use_integers_for_enums=True)
            self._lines.write(json.dumps(_with_hexadecimal_ids(request), separators=(",", ":")) + "\n")
        self._waiting = []


def _as_stored_attempt(read: ReadAttempt) -> StoredAttempt:
    attempt = read.attempt
    return StoredAttempt(
        key=attempt.key,
        id=attempt.id,
        attempt=attempt.attempt,
        mode=attempt.mode,
        task_id=attempt.task_id,
        group=attempt.group,
        status=Status(attempt.status),
        error=attempt.error,
        started=attempt.started,
        ended=attempt.ended,
    )


def _events(read: ReadAttempt) -> Iterator[DecodedEvent]:
    """What happened in it, with the rewards that count now."""
    yield from read.found.spans
    yield from read.calls
    for each in read.rewards:
        if each.counts:
            yield RewardEvent(
                Event.REWARD,
                read.attempt.key,
                each.value,
                each.role,
                each.name,
                each.span,
                each.time_ns,
                each.by_function,
                each.why,
            )


def _with_hexadecimal_ids(message: Any) -> Any:
    """The message with ids as OTLP writes them; a part of it as well."""
    if isinstance(message, list):
        return [_with_hexadecimal_ids(each) for each in message]
    if not isinstance(message, dict):
        return message
    return {
        name: base64.b64decode(value).hex() if name in _IDS and isinstance(value, str) else _with_hexadecimal_ids(value)
        for name, value in message.items()
    }
