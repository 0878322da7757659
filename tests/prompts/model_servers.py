"""Local servers as doubles of models: one that does what its instruction says, and one that reflects on it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from lightning_prompts.model_check import QUESTION as CHECK
from tests.prompts.words import reflect


class LocalServer:
    """Serves at `url` from when it is made until its block ends."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class ModelServer(LocalServer):
    """Answers chat completions, messages and the list of models; `reply` makes a text of the request."""

    def __init__(self, reply: Callable[[dict[str, Any]], str], models: tuple[str, ...] = ("scripted",)) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.failures: list[int] = []
        """HTTP statuses of the next answers, before it works again."""
        self.failure_headers: dict[str, str] = {}
        """Of these answers."""
        self.seconds = 0.0
        """How long an answer takes."""
        self.hangs_after: int | None = None
        """Number of requests that are answered; those that follow wait for a minute. None: all are answered."""
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": name} for name in models]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with double._lock:
                    double.requests.append(body)
                    double.headers.append({name.lower(): value for name, value in self.headers.items()})
                    double._at_once += 1
                    double.most_at_once = max(double.most_at_once, double._at_once)
                    status = double.failures.pop(0) if double.failures else 200
                    hangs = double.hangs_after is not None and len(double.requests) > double.hangs_after
                time.sleep(60 if hangs else double.seconds)
                text = reply(body) if status == 200 else ""
                with double._lock:
                    double._at_once -= 1
                self._send(status, _message(text) if self.path.endswith("/messages") else _completion(text))

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in double.failure_headers.items() if status != 200 else ():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)


class WebServer(LocalServer):
    """Answers everything with the same bytes, as a web page does that is not a model's API."""

    def __init__(self, page: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)


def obey(body: dict[str, Any]) -> str:
    """Says each [word] that the instruction tells it to say."""
    told = [each["content"] for each in body["messages"] if each["role"] == "system"] or [
        body["messages"][0]["content"]
    ]
    return " ".join(re.findall(r"\w+", "".join(told).partition("Say:")[2])) or "nothing"


def reflecting(body: dict[str, Any]) -> str:
    asked = body["messages"][0]["content"]
    return "ready" if asked == CHECK else reflect(asked)


def _completion(text: str) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def _message(text: str) -> dict[str, Any]:
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
