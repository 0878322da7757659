"""Many that connect at once, to a server that takes none of them for a while."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from urllib.parse import urlsplit


def count_connections(url: str, pid: int, count: int = 1000, seconds: float = 5.0) -> int:
    """How many of `count` connections are there within `seconds`, while the server's process stands still."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    with selectors.DefaultSelector() as waiting:
        os.kill(pid, signal.SIGSTOP)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for each in sockets:
                each.setblocking(False)
                each.connect_ex((parts.hostname, parts.port))
                waiting.register(each, selectors.EVENT_WRITE)
            until = time.monotonic() + seconds
            while waiting.get_map() and time.monotonic() < until:
                for key, _ in waiting.select(until - time.monotonic()):
                    waiting.unregister(key.fileobj)
            return count - len(waiting.get_map())
        finally:
            os.kill(pid, signal.SIGCONT)
            for each in sockets:
                each.close()
