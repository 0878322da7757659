"""Requests over a plain socket or the standard library, so that no client library stands between test and gateway."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

MESSAGES = [{"role": "user", "content": "abc"}]


def body(**changes: Any) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **changes}).encode()


def ask(
    url: str, data: bytes | dict[str, Any] | None = None, *, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer. Underscores of header names stand for hyphens."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    sent = json.dumps(data).encode() if isinstance(data, dict) else data
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, sent, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def post(url: str, data: dict[str, Any] | None = None, token: str = "") -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer to a JSON request."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    status, _, answer = ask(url, data, **headers)
    return status, json.loads(answer)


def connect(url: str, data: bytes, **headers: str) -> socket.socket:
    """A socket on which a request has been sent and nothing has been read."""
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    opened = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
    opened.sendall("\r\n".join(lines).encode() + data)
    return opened


def until(opened: socket.socket, marker: bytes) -> bytes:
    """What came up to and with `marker`."""
    got = b""
    while marker not in got:
        piece = opened.recv(65536)
        assert piece, f"closed after {got!r}"
        got += piece
    return got


def error(answer: bytes) -> str:
    """The message of an error in OpenAI's shape."""
    return str(json.loads(answer)["error"]["message"])
