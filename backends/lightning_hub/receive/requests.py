"""Requests: calls the hub's methods for its clients, and keeps those whose answer comes later."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgspec

from lightning_sdk.errors import HubError, LightningError
from lightning_sdk.failures import disk
from lightning_sdk.stream import wire

_log = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Parked:
    """A request whose answer may come later."""

    poll: Callable[[], Any]
    """The answer, or something false while there is none."""
    seconds: float
    """How long to wait for it; then the last false value is the answer."""
    lost: Callable[[Any], None] = lambda _: None
    """Gets the answer that could not be sent since the peer has gone."""
    gone: Callable[[], None] | None = None
    """Called when the peer has gone: while it waits, or at any time after its answer. Of several requests of one peer
    the last one's counts."""


#: Params in, plain data or `Parked` out; raises LightningError.
Method = Callable[[dict[str, Any]], Any]


class _Waiting(NamedTuple):
    peer: bytes
    number: int
    parked: Parked
    until: float


class Requests:
    """Belongs to the receiver's thread."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        send: Callable[[bytes, bytes, bytes], bool],
        is_there: Callable[[bytes], bool],
        folder: Path,
    ) -> None:
        """`send` takes peer, kind and payload; False if the peer has gone, as with `is_there`. `folder`: where the
        methods write."""
        self._methods, self._send, self._is_there, self._folder = methods, send, is_there, folder
        self._waiting: list[_Waiting] = []
        self._departures: dict[bytes, Callable[[], None]] = {}
        """Peer -> what is called when it has gone."""

    @property
    def next_end(self) -> float:
        """When the patience of a parked request ends first (monotonic time), infinity if none waits."""
        return min((each.until for each in self._waiting), default=math.inf)

    def take(self, peer: bytes, payload: bytes, methods: Collection[str]) -> bool:
        """Answer one REQUEST now or park it; `methods`: those that this peer may call. False if it is none."""
        try:
            # With keys of any kind, so that what is wrong with them can be answered.
            number, method, params = msgpack.unpackb(payload, strict_map_key=False)
        except (ValueError, TypeError, RecursionError):
            return False
        if not isinstance(number, int) or not 0 <= number < 2**63:
            return False
        try:
            answer = self._call(method, params, methods)
        except LightningError as error:
            self._answer(peer, number, None, [type(error).__name__, str(error)])
            return True
        if isinstance(answer, Parked):
            if answer.gone is not None:
                self._departures[peer] = answer.gone
            self._waiting.append(_Waiting(peer, number, answer, time.monotonic() + answer.seconds))
            self.look()
        else:
            self._answer(peer, number, answer)
        return True

    def look(self) -> None:
        """Answer what can be answered by now, and what has waited long enough."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            try:
                answer = each.parked.poll()
            except Exception as error:
                failed = self._failure("a request", error)
                self._answer(each.peer, each.number, None, [type(failed).__name__, str(failed)])
                continue
            if not answer and time.monotonic() < each.until:
                self._waiting.append(each)
            elif not self._answer(each.peer, each.number, answer):
                each.parked.lost(answer)

    def drop_gone(self) -> None:
        """Forget the peers that have gone, and their requests: the end of a process is the end of its connection."""
        peers = {*self._departures, *(each.peer for each in self._waiting)}
        gone = {peer for peer in peers if not self._is_there(peer)}
        self._waiting = [each for each in self._waiting if each.peer not in gone]
        for depart in [self._departures.pop(peer) for peer in gone & self._departures.keys()]:
            depart()

    def _call(self, method: Any, params: Any, methods: Collection[str]) -> Any:
        handler = self._methods.get(method) if isinstance(method, str) else None
        if handler is None:
            raise HubError(f"the hub has no method {method!r:.80}; it has {', '.join(sorted(self._methods))}")
        if method not in methods:
            raise HubError(f"this key does not permit {method!r}: only the process that started the hub may ask for it")
        try:
            return handler(dict(params))
        except LightningError:
            raise
        except Exception as error:
            raise self._failure(method, error) from error

    def _failure(self, what: str, error: Exception) -> LightningError:
        """What the client is told of an error that nobody foresaw, or of a full disk."""
        if (told := disk.trouble(error, self._folder)) is not None:
            _log.error("%s failed: %s", what, told)
            return told
        _log.error("%s failed", what, exc_info=error)
        return HubError(f"{what} failed in the hub: {error!r}; hub.log in the run's folder has more")

    def _answer(self, peer: bytes, number: int, result: Any, error: list[str] | None = None) -> bool:
        try:
            payload = _pack([number, error, result])
            if len(payload) > wire.MAX_MESSAGE_BYTES:
                raise ValueError(f"it has {len(payload):,} bytes, more than the limit of {wire.MAX_MESSAGE_BYTES:,}")
        except (TypeError, ValueError, OverflowError, RecursionError) as failure:
            payload = _pack([number, ["HubError", f"the answer cannot be sent: {failure}"], None])
        return self._send(peer, wire.REPLY, payload)
