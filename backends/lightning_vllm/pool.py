"""The pool: the servers behind a front, their load, and which of them each rollout stays with."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

#: Number of rollouts whose server is remembered.
_MOST_PINS = 1 << 16
#: How long a server that refused a connection is not tried again.
_REST_SECONDS = 0.5


class ServerAddress(NamedTuple):
    """The address of a server, and its key."""

    url: str
    """Such as http://127.0.0.1:8000/v1."""
    key: str
    """'' if it needs none."""


class UpstreamCounts(NamedTuple):
    """How many requests one server has received."""

    url: str
    in_flight: int
    asked: int
    """Requests since it joined the pool, including those in flight."""
    lost: int
    """Requests that it did not answer, or answered with a server error."""


class PooledServer:
    """A server of the pool and its state."""

    __slots__ = ("asked", "doubtful", "headers", "in_flight", "lost", "rests_until", "upstream")

    def __init__(self, upstream: ServerAddress) -> None:
        self.upstream = upstream
        self.headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if upstream.key:
            self.headers["Authorization"] = f"Bearer {upstream.key}"
        self.in_flight = self.asked = self.lost = 0
        self.rests_until = 0.0
        self.doubtful = False
        """Whether it has lost a request and has not been seen healthy since."""

    def lose(self) -> None:
        """Count a request that it did not answer, or answered with a server error."""
        self.lost += 1
        self.doubtful = True

    def rest(self) -> None:
        """Use other servers for a moment."""
        self.rests_until = time.monotonic() + _REST_SECONDS

    @property
    def counts(self) -> UpstreamCounts:
        return UpstreamCounts(self.upstream.url, self.in_flight, self.asked, self.lost)


class Pool:
    """Chooses servers. Not thread-safe, except `counts`."""

    def __init__(self) -> None:
        self._servers: tuple[PooledServer, ...] = ()
        self._pins: OrderedDict[str, PooledServer] = OrderedDict()

    def replace(self, upstreams: Sequence[ServerAddress]) -> None:
        """Use these servers from now on. Those that stay keep their counts and their rollouts."""
        before = {server.upstream: server for server in self._servers}
        self._servers = tuple(before.get(each) or PooledServer(each) for each in dict.fromkeys(upstreams))
        stay = set(self._servers)
        for server in self._servers:
            server.rests_until = 0.0
        self._pins = OrderedDict((pin, server) for pin, server in self._pins.items() if server in stay)

    @property
    def has_several(self) -> bool:
        return len(self._servers) > 1

    def choose(self, pin: str) -> PooledServer | None:
        """The rollout's server; for a new rollout, or while its server rests, the least loaded. None if all rest."""
        now = time.monotonic()
        pinned = self._pins.get(pin)
        if pinned is not None and pinned.rests_until <= now:
            self._pins.move_to_end(pin)
            return pinned
        awake = [server for server in self._servers if server.rests_until <= now]
        if not awake:
            return None
        chosen = min(awake, key=lambda server: (server.in_flight, server.asked))
        if pin:
            self._pins[pin] = chosen
            self._pins.move_to_end(pin)
            if len(self._pins) > _MOST_PINS:
                self._pins.popitem(last=False)
        return chosen

    def counts(self) -> tuple[UpstreamCounts, ...]:
        return tuple(server.counts for server in self._servers)
