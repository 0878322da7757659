"""An upstream whose every byte a test decides, on a real socket. It stands in for providers that no test may call."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Received:
    """One request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each.lower() == name), None)


@dataclass
class Connection:
    """The server's end while a script answers."""

    socket: socket.socket
    request: Received

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join([*head, "", ""]).encode() + body)

    def begin_stream(self, *headers: str) -> None:
        head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", *headers]
        self.send("\r\n".join([*head, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def hung_up(self) -> bool:
        """Wait until the other side has gone."""
        self.socket.settimeout(60)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


@dataclass
class Scripted:
    """Answers each request with `script`, a thread for each connection."""

    script: Callable[[Connection], None]
    requests: list[Received] = field(default_factory=list)

    def __enter__(self) -> Scripted:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
            while line := file.readline():
                headers = []
                while (header := file.readline().strip()) != b"":
                    name, _, value = header.decode("latin-1").partition(":")
                    headers.append((name, value.strip()))
                request = Received(line.decode().strip(), headers, b"")
                request.body = _body(file, request)
                self.requests.append(request)
                self.script(Connection(connection, request))


def _body(file: object, request: Received) -> bytes:
    read, readline = file.read, file.readline  # type: ignore[attr-defined]
    if request.header("transfer-encoding") == "chunked":
        parts = []
        while size := int(readline(), 16):
            parts.append(read(size))
            readline()
        readline()
        return b"".join(parts)
    body: bytes = read(int(request.header("content-length") or 0))
    return body
