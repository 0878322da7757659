"""The server: the page's files, and its data as JSON, to this machine only."""

from __future__ import annotations

import gzip
import logging
import math
import secrets
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from json import dumps
from typing import Any
from urllib.parse import unquote, urlsplit

from lightning_dashboard import guard
from lightning_dashboard.query import BadQuery, ViewQuery
from lightning_dashboard.runs import Runs, UnknownRun
from lightning_dashboard.views import answer
from lightning_sdk.errors import LightningError

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Answers below this size are sent as they are.
_GZIP_BYTES = 4096
_IDLE_SECONDS = 120.0
_log = logging.getLogger(__name__)


class DashboardServer(ThreadingHTTPServer):
    """Serves until `shutdown`. Its address holds the token in its fragment, which no browser sends anywhere."""

    daemon_threads = True

    def __init__(self, runs: Runs, port: int = 0, token: str = "") -> None:
        """OSError if the port is taken; 0 picks a free one."""
        self.runs = runs
        self.token = token or secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def url(self, run: str = "") -> str:
        """The address to open, of one run or of the list."""
        place = f"/run/{run}" if run else "/"
        return f"http://127.0.0.1:{self.server_address[1]}/#{place}?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is not worth a trace."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            _log.exception("a request failed")


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lightning", ""
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if refused := guard.refusal(self.headers):
            self._send_error(HTTPStatus.FORBIDDEN, refused)
            return
        address = urlsplit(self.path)
        if not address.path.startswith("/api/"):
            self._send_file(unquote(address.path).lstrip("/") or "index.html")
        elif not guard.is_authorized(self.headers, self.server.token):
            told = "the token is missing or from an earlier start: open the address that was printed"
            self._send_error(HTTPStatus.UNAUTHORIZED, told)
        else:
            self._send_data(address.path.removeprefix("/api/"), address.query)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send_data(self, view: str, query: str) -> None:
        try:
            found = answer(view, self.server.runs, ViewQuery(query))
        except BadQuery as error:
            self._send_error(HTTPStatus.BAD_REQUEST, str(error))
        except (UnknownRun, LookupError) as error:
            self._send_error(HTTPStatus.NOT_FOUND, str(error.args[0] if error.args else error))
        except LightningError as error:
            self._send_error(HTTPStatus.CONFLICT, str(error))
        except Exception as error:  # a damaged folder, for one: the page says so, and the others go on
            _log.exception("the view %s failed", view)
            self._send_error(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, "application/json", to_json(found).encode())

    def _send_file(self, name: str) -> None:
        found = find_file(name)
        if found is None:
            self._send_error(HTTPStatus.NOT_FOUND, "there is no such page")
        else:
            self._send(HTTPStatus.OK, _TYPES[name.rpartition(".")[2]], found)

    def _send_error(self, status: HTTPStatus, told: str) -> None:
        self._send(status, "application/json", to_json({"error": told}).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        zipped = len(body) >= _GZIP_BYTES and "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body, 1) if zipped else body
        self.send_response(status)
        for name, value in guard.HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store" if kind == "application/json" else "no-cache")
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the class above
        _log.debug(format, *args)


def find_file(name: str) -> bytes | None:
    """A file of the page; None if there is none of that name."""
    *folders, last = name.split("/")
    if any(part in {"", ".", ".."} or "\\" in part for part in (*folders, last)):
        return None
    if last.rpartition(".")[2] not in _TYPES:
        return None
    path = resources.files("lightning_dashboard").joinpath("page", *folders, last)
    return path.read_bytes() if path.is_file() else None


def to_json(value: Any, *, ascii: bool = True) -> str:  # noqa: A002 - as in `json.dumps`
    """`value` as JSON; a number that is not finite is null. `ascii` False: with characters of all languages as they
    are."""
    try:
        return dumps(value, allow_nan=False, ensure_ascii=ascii, separators=(",", ":"))
    except ValueError:
        return dumps(_finite(value), allow_nan=False, ensure_ascii=ascii, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
