"""A function of the user's as the reflecting model: served on this machine while the run lasts, since the search that
asks it is in the hub's process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from lightning_sdk.failures.failure import summary
from lightning_sdk.rollouts import reference

P = ParamSpec("P")
R = TypeVar("R")

_SETTING = "prompts.reflect_with"


def serving_reflecting_function(train: Callable[P, R]) -> Callable[P, R]:
    """`train`, which takes a function too where the setting names a model."""

    @functools.wraps(train)
    def with_address(*args: P.args, **kwargs: P.kwargs) -> R:
        function: Any = kwargs.get(_SETTING)
        if not callable(function):
            return train(*args, **kwargs)
        with serve_function(function) as address:
            kwargs[_SETTING] = address
            return train(*args, **kwargs)

    return with_address


@contextlib.contextmanager
def serve_function(function: Callable[[str], str | None]) -> Iterator[str]:
    """The address of a model that answers each question with what `function` returns, until the block ends.

    Only who knows the address can ask: a part of it is a secret.
    """
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415 - for such runs alone

    prefix, name = f"/{secrets.token_urlsafe(16)}/v1", reference.name_of(function)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != f"{prefix}/chat/completions":
                self._send(404, {"error": "not found"})
                return
            try:
                said = function(str(body["messages"][-1]["content"]))
            except Exception as error:  # of the user's function: the search tells it
                self._send(400, {"error": f"{name}() raised {summary(error)}"})
                return
            message = {"role": "assistant", "content": said if isinstance(said, str) else None}
            self._send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def _send(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="lightning-reflecting-function", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}#{name}"
    finally:
        server.shutdown()
        server.server_close()
