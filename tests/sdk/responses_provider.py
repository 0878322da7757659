"""A provider that speaks the Responses API itself. It stands in for a paid API, which no test may call."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lightning_sdk.translation.sse import event

#: a function tool as the Responses API takes it
ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "description": "Adds.",
    "strict": True,
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


class ResponsesProvider:
    """An HTTP server; `seen` has the path and raw body of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                provider.seen.append((self.path, raw))
                streamed = b'"stream":true' in raw
                body = provider.stream() if streamed else json.dumps(provider.response("completed")).encode()
                self.send_response(200)
                self.send_header("content-type", "text/event-stream" if streamed else "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def response(self, status: str) -> dict[str, Any]:
        text = {"type": "output_text", "text": "cba", "annotations": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [text]}
        call = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": status,
            "model": "gpt-x",
            "output": [] if status == "in_progress" else [message, call],
            "parallel_tool_calls": True,
            "tools": [],
            "tool_choice": "auto",
            "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
        }

    def stream(self) -> bytes:
        delta = {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": "cb",
            "logprobs": [],
        }
        events = [
            {"type": "response.created", "response": self.response("in_progress")},
            delta,
            {**delta, "delta": "a"},
            {"type": "response.completed", "response": self.response("completed")},
        ]
        return b"".join(event({**each, "sequence_number": at}, each["type"]) for at, each in enumerate(events))

    def __enter__(self) -> "ResponsesProvider":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
