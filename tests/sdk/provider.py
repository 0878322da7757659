"""A model provider on loopback. It stands in for a paid API, which no test may call, and for an engine's token fields.

It answers chat completions with the user's last message reversed, one character a token, and keeps every request.
"""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)


class ProviderHandler(BaseHTTPRequestHandler):
    """Keeps every request of its provider; `answer` and `refuse` are what providers differ in."""

    protocol_version = "HTTP/1.1"
    provider: "Provider"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, raw)
        self.provider.requests.append(request)
        if self.provider.fail:
            self.refuse(self.provider.fail.pop(0))
        else:
            self.answer(request)

    def answer(self, request: Request) -> None:
        if request.body.get("stream"):
            self._stream(request.body)
        else:
            self.send(200, completion(request.body))

    def refuse(self, status: int) -> None:
        self.send(status, {"error": {"message": "no", "type": "x", "code": "y"}})

    def send(self, status: int, value: object, kind: str = "application/json") -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for chunk in [*chunks(body), "[DONE]"]:
                text = chunk if isinstance(chunk, str) else json.dumps(chunk)
                line = f"data: {text}\n\n".encode()
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Provider:
    """An OpenAI-shaped HTTP server; `fail` answers the next requests with these statuses."""

    handler = ProviderHandler
    path = "/v1"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.fail: list[int] = []
        handler = type(self.handler.__name__, (self.handler,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients that hang up are part of it
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{self.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])[::-1]


def completion(body: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for index in range(body.get("n") or 1):
        text = answer(body)
        choice: dict[str, Any] = {
            "index": index,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(character) for character in text]}
        if body.get("return_token_ids"):
            choice["token_ids"] = [ord(character) for character in text]
        choices.append(choice)
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": choices,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    }
    if body.get("return_token_ids"):
        value["prompt_token_ids"] = [1, 2, 3]
    return value


def chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    made = []
    text = answer(body)
    for index, character in enumerate(text):
        choice: dict[str, Any] = {"index": 0, "delta": {"content": character}, "finish_reason": None}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(character)]}
        if body.get("return_token_ids"):
            choice["token_ids"] = [ord(character)]
        made.append({**frame, "choices": [choice]})
        if not index and body.get("return_token_ids"):
            made[0]["prompt_token_ids"] = [1, 2, 3]
    made.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return made


def _logprob(character: str) -> dict[str, Any]:
    return {"token": character, "logprob": -0.5, "bytes": None, "top_logprobs": []}
