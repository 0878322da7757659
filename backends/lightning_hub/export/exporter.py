"""Export: finished rollouts, and spans outside of rollouts, sent to an OpenTelemetry collector by its own thread.

What waits is only named (a key, a place in the log) and read back when its turn comes, so a collector that is slow or
dead costs neither memory nor time elsewhere. When too much waits, the oldest is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from lightning_hub.storage.index import Extent, Index
from lightning_hub.storage.store import Store
from lightning_sdk.errors import SettingError
from lightning_sdk.trace import genai

if TYPE_CHECKING:  # it needs OpenTelemetry's SDK, which only who exports has
    from opentelemetry.sdk.trace import ReadableSpan

_MAX_WAITING = 10_000
_SPANS_AT_ONCE = 512
#: Seconds in which spans of several rollouts gather into one request.
_GATHER_SECONDS = 0.5
#: Times the work that it rests after it: taking events in comes first on the interpreter that both share.
_REST_FACTOR = 3.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """Where spans go, and what goes with them."""

    url: str
    given: bool
    """Whether our own setting gave it; else OpenTelemetry's environment variables did, which also say the rest."""
    messages: bool = False
    tokens: bool = False

    @classmethod
    def of(cls, endpoint: str | None, tokens: bool, environment: Mapping[str, str]) -> ExportTarget | None:
        """The target of the setting `export.otlp_endpoint` or else of the environment; None: nothing is exported.

        Raises:
            SettingError: what is asked for cannot be done.
        """
        messages = environment.get(genai.CAPTURE, "").lower() in {"true", "span_only", "span_and_event"}
        if endpoint:
            if not endpoint.startswith(("http://", "https://")):
                raise SettingError(
                    f"setting export.otlp_endpoint={endpoint!r}: expected a URL, such as http://127.0.0.1:4318"
                )
            base = endpoint.rstrip("/").removesuffix("/v1/traces")
            return cls(f"{base}/v1/traces", True, messages, tokens)
        name = next((name for name in _ENDPOINTS if environment.get(name)), None)
        off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if name is None or off or environment.get("OTEL_TRACES_EXPORTER") == "none":
            return None
        protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
        if protocol != "http/protobuf":
            raise SettingError(
                f"spans are exported by http/protobuf, but the environment asks for OTLP over {protocol} ({name}="
                f"{environment[name]}): set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf and "
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to the collector's HTTP address, such as "
                "http://127.0.0.1:4318/v1/traces, or OTEL_TRACES_EXPORTER=none"
            )
        return cls(environment[name], False, messages, tokens)


class Exporter:
    """Sends to one target until it is closed."""

    def __init__(
        self, target: ExportTarget, *, index: Index, store: Store, workflow: str, warn: Callable[[str], None]
    ) -> None:
        """SettingError if what it needs is not installed, or the environment holds a value that cannot be used."""
        try:
            from lightning_hub.export import spans as otlp  # noqa: PLC0415 - it needs OpenTelemetry's SDK
        except ImportError as error:
            raise SettingError(
                f"spans cannot be exported to {target.url}: OpenTelemetry's exporter is not installed in the hub's "
                f"environment ({error}): pip install 'lightning-agent-sdk[otlp]', or set OTEL_TRACES_EXPORTER=none"
            ) from error
        self._otlp, self.target = otlp, target
        self._index, self._store, self._warn = index, store, warn
        self._translator = otlp.Translator(workflow, _version(), otlp.SpanContents(target.messages, target.tokens))
        try:
            self._collector = otlp.Collector(target.url if target.given else None)
        except (ValueError, OSError) as error:
            raise SettingError(f"spans cannot be exported to {target.url}: {error}") from error
        self._reasons = _Reasons()
        self._queue: deque[bytes | list[Extent]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._failed = ""
        self.exported = self.dropped = self.dropped_rollouts = 0
        """Spans, spans, and rollouts that were not even read back."""
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    def add_rollouts(self, keys: Iterable[bytes]) -> None:
        """These attempts are over. Any thread; returns at once."""
        self._put(keys)

    def add_strays(self, places: list[Extent]) -> None:
        """Events outside of rollouts are at these places of the log. Any thread; returns at once."""
        self._put([places])

    def status(self) -> dict[str, Any]:
        """Counters and facts, plain data."""
        return {
            "endpoint": self.target.url,
            "exported": self.exported,
            "waiting": len(self._queue),
            "dropped": self.dropped + self._translator.malformed,
            "dropped_rollouts": self.dropped_rollouts,
            "error": self._failed,
        }

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, within this many seconds, and stop. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._abandon()
            self._collector.close()
            self._thread.join(1.0)
        if self.dropped or self.dropped_rollouts:
            _log.warning(
                "%d spans, and all spans of %d rollouts, were not exported to %s: %s",
                self.dropped,
                self.dropped_rollouts,
                self.target.url,
                self._failed or "too many waited",
            )
        self._reasons.close()

    def _put(self, items: Iterable[bytes | list[Extent]]) -> None:
        with self._changed:
            self._queue.extend(items)
            while len(self._queue) > _MAX_WAITING:
                self._count_lost(self._queue.popleft())
            self._changed.notify_all()

    def _abandon(self) -> None:
        with self._changed:
            while self._queue:
                self._count_lost(self._queue.popleft())

    def _count_lost(self, item: bytes | list[Extent]) -> None:
        if isinstance(item, bytes):
            self.dropped_rollouts += 1
        else:
            self.dropped += len(item)

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                self._changed.wait_for(lambda: self._closing, _GATHER_SECONDS)
            began = time.thread_time()
            spans: list[ReadableSpan] = []
            while self._queue and len(spans) < _SPANS_AT_ONCE:
                spans += self._read()
            for start in range(0, len(spans), _SPANS_AT_ONCE):
                self._send(spans[start : start + _SPANS_AT_ONCE])
            rest = _REST_FACTOR * (time.thread_time() - began)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, rest)

    def _read(self) -> list[ReadableSpan]:
        """The spans of what has waited longest."""
        with self._changed:
            item = self._queue.popleft() if self._queue else []
        try:
            if isinstance(item, list):
                return self._translator.strays(self._index.at(item))
            attempt = self._store.attempt(item)
            return [] if attempt is None else self._translator.rollout(attempt, self._index.events(item))
        except Exception as error:  # deleted from the log by now, for one; never the end of the thread
            self._fail(f"{type(error).__name__}: {error}")
            self._count_lost(item)
            return []

    def _send(self, spans: list[ReadableSpan]) -> None:
        self._reasons.first = ""
        try:
            sent = self._collector.send(spans)
        except Exception as error:
            self._reasons.first, sent = f"{type(error).__name__}: {error}", False
        if sent:
            self.exported += len(spans)
        else:
            self._fail(self._reasons.first or "the collector did not take them")
            self.dropped += len(spans)

    def _fail(self, reason: str) -> None:
        first, self._failed = not self._failed, reason
        if first:
            self._warn(f"spans cannot be exported to {self.target.url} and are dropped: {reason}")


class _Reasons(logging.Handler):
    """Why the exporter failed: it only logs that, again and again, which is not for hub.log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""
        """Of the request under way: what follows is that it gave up."""
        self._logger = logging.getLogger("opentelemetry.exporter.otlp")
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()[:500]

    def close(self) -> None:
        self._logger.removeHandler(self)
        super().close()


def _version() -> str:
    try:
        return version("lightning-agent-sdk")
    except PackageNotFoundError:
        return ""


def start_exporter(
    endpoint: str | None, tokens: bool, *, index: Index, store: Store, workflow: str, warn: Callable[[str], None]
) -> Exporter | None:
    """The exporter that setting and environment ask for, None if they ask for none.

    What the environment asks for in vain is said, and what the setting asks for in vain is a SettingError: an
    endpoint in the environment is often not meant for this program in particular.
    """
    try:
        target = ExportTarget.of(endpoint, tokens, os.environ)
        return Exporter(target, index=index, store=store, workflow=workflow, warn=warn) if target else None
    except SettingError as error:
        if endpoint:
            raise
        warn(str(error))
        return None
