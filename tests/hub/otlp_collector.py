"""An OpenTelemetry collector on loopback: takes OTLP over HTTP as the real one does, and keeps the spans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received

from tests.waiting import wait_for


class Collector:
    """`status` is what it answers; while `hang` is set it does not answer at all."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.requests: list[tuple[str, dict[str, str], int]] = []
        """Path, headers and number of spans of each request."""
        self.services: set[str] = set()
        self.status = 200
        self.hang = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                while collector.hang.is_set():
                    time.sleep(0.02)
                if collector.status == 200:
                    collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # a hub that is killed hangs up
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = []
        for resource in request.resource_spans:
            self.services.add(str(plain(resource.resource.attributes)["service.name"]))
            found += [span for scope in resource.scope_spans for span in scope.spans]
        self.requests.append((path, headers, len(found)))
        self.spans += found

    def wait(self, until: Callable[[Collector], bool]) -> None:
        """Until it has what is wanted; fails the test if that does not come."""
        wait_for(lambda: until(self), lambda: [span.name for span in self.spans])

    def of(self, rollout: str) -> list[Received]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id.hex() == rollout]

    def close(self) -> None:
        self.hang.clear()
        self._server.shutdown()
        self._server.server_close()


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as Python values."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))


def tree(spans: list[Received]) -> dict[str, str]:
    """Name of each span -> name of its parent, '' at the top."""
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_span_id, "") for span in spans}
