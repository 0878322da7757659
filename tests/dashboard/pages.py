"""The dashboard's server in this process, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lightning_dashboard.runs import Runs
from lightning_dashboard.server import DashboardServer


class Page:
    """A server and what is asked of it."""

    def __init__(self, server: DashboardServer) -> None:
        self.server = server
        self.port = server.server_address[1]

    @property
    def url(self) -> str:
        return self.server.url()

    def request(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers=headers or {})
            reply = connection.getresponse()
            return reply.status, dict(reply.headers), reply.read()
        finally:
            connection.close()

    def ask(self, view: str, **params: Any) -> Any:
        """What a view answers; also when it refuses."""
        query = urlencode({name: value for name, value in params.items() if value is not None}, doseq=True)
        _, _, body = self.request(f"/api/{view}?{query}", {"Authorization": f"Bearer {self.server.token}"})
        return json.loads(body)


@contextmanager
def serve(*places: Path) -> Iterator[Page]:
    """A server that shows these."""
    server = DashboardServer(Runs(list(places)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Page(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)
