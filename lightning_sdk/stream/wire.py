"""The protocol between an agent's process and the hub: message kinds, events, batches and packed arrays.

Everything is msgpack with size limits; nothing is ever unpickled. Integers in headers are little-endian.

Messages (ZeroMQ frames, DEALER in the agent, ROUTER in the hub; the first frame is one byte, the kind):

    HELLO    msgpack {protocol, client: bytes16, key: str, pid: int, host: str}; from a hub that was restarted, to a
             peer that it does not know: greet me again
    WELCOME  msgpack {hub: str, acked: int}           acked: last event number of this client that is durable
    REFUSED  msgpack {reason: str}
    BATCH    header (see `Batch`), body               events first .. first + count - 1 of one client
    ACK      msgpack {acked: int}                     cumulative: every event up to and with this one is durable
    REQUEST  msgpack [number, method: str, params: dict]
    REPLY    msgpack [number, error: [name, message] | None, result]

A client numbers its events from 1, keeps each batch until an ACK passes it, and sends it again after a reconnect.
The hub drops what it already has and answers HELLO where a gap shows. So events arrive at least once and count once.

An event is a msgpack array `[kind, rollout key: bytes16, ...]`; `lightning_sdk.stream.events` has what follows.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import msgpack

PROTOCOL = 1
HELLO, WELCOME, REFUSED, BATCH, ACK, REQUEST, REPLY = (bytes([number]) for number in range(1, 8))

#: No message larger than this is read, from any sender.
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
#: An event, packed: a call with more is recorded without its request and reply.
MAX_EVENT_BYTES = 64 * 1024 * 1024
#: A task, packed. It is kept in memory, in the store and in each lease of it.
MAX_TASK_BYTES = 32 * 1024 * 1024
#: The rollout key of an event that belongs to no rollout.
NO_ROLLOUT = bytes(16)


class Event(IntEnum):
    """What one event of the stream tells. `lightning_sdk.stream.events` has the fields of each kind."""

    REPLY = 1
    CALL = 2
    SPAN = 3
    REWARD = 4
    BEGIN = 5
    END = 6


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Consecutive events of one client, as sent and as logged."""

    client: bytes
    first: int
    """Number of the first event."""
    count: int
    body: bytes | memoryview
    """The events' msgpack, one after another."""

    HEADER: ClassVar = struct.Struct("<16sQIII")  # client, first, count, length of body, crc32 of body or 0

    def header(self, *, checked: bool = True) -> bytes:
        """What goes before the body. Not `checked`, crc32 is 0: for a connection, which has its own checksums."""
        crc = zlib.crc32(self.body) if checked else 0
        return self.HEADER.pack(self.client, self.first, self.count, len(self.body), crc)

    @classmethod
    def read(cls, header: bytes, body: bytes) -> EventBatch:
        """The batch of two frames; ValueError if it is torn."""
        if len(header) != cls.HEADER.size:
            raise ValueError(f"batch header of {len(header)} bytes")
        client, first, count, length, crc = cls.HEADER.unpack(header)
        if length != len(body) or (crc and zlib.crc32(body) != crc):
            raise ValueError(f"batch {first} of {count} events is torn")
        return cls(client, first, count, body)

    def events(self) -> Iterator[list[Any]]:
        unpacker = msgpack.Unpacker(max_buffer_size=MAX_MESSAGE_BYTES)
        unpacker.feed(self.body)
        return iter(unpacker)


@dataclass(frozen=True, slots=True)
class HubMessage:
    """What a hub tells a stream: HELLO, WELCOME, REFUSED or ACK."""

    kind: bytes
    acked: int = 0
    """Last event number that is durable; only in WELCOME and ACK."""
    hub: str = ""
    """Id of the hub; only in WELCOME."""
    reason: str = ""
    """Why the hub refused; only in REFUSED."""

    FIELDS: ClassVar[dict[bytes, dict[str, type]]] = {
        HELLO: {},
        WELCOME: {"hub": str, "acked": int},
        REFUSED: {"reason": str},
        ACK: {"acked": int},
    }

    @classmethod
    def read(cls, frames: list[bytes]) -> HubMessage:
        """The message of two frames; ValueError if it is malformed."""
        if len(frames) != 2 or frames[0] not in cls.FIELDS:
            raise ValueError(f"{len(frames)} frames that begin with {frames[0][:8]!r}")
        told, fields = unpack(frames[1]), cls.FIELDS[frames[0]]
        if fields and not isinstance(told, dict):
            raise ValueError(f"a {type(told).__name__} instead of a map")
        for name, kind in fields.items():
            if type(told.get(name)) is not kind:
                raise ValueError(f"{name} is {told.get(name)!r:.40}")
        if fields and not 0 <= told.get("acked", 0) < 2**63:
            raise ValueError(f"acked is {told['acked']}")
        return cls(frames[0], **{name: told[name] for name in fields})


def hello(client: bytes, key: str) -> bytes:
    """The payload of HELLO from this process."""
    return pack({"protocol": PROTOCOL, "client": client, "key": key, "pid": os.getpid(), "host": socket.gethostname()})


def pack(value: object) -> bytes:
    """`value` as msgpack. TypeError for what is not plain data."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """The value of one msgpack message; ValueError if it is not one."""
    return msgpack.unpackb(data)  # its limits follow from the length of `data`


def pack_ints(values: Iterable[int]) -> bytes:
    """Token ids as packed little-endian int32. ValueError for what is none."""
    return _pack_array("i", tuple(values))


def pack_floats(values: Iterable[float]) -> bytes:
    """Log-probabilities as packed little-endian float32. ValueError for what is none."""
    return _pack_array("f", tuple(values))


def _pack_array(code: str, values: tuple[Any, ...]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}{code}", *values)  # twice as fast as array
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{'token ids' if code == 'i' else 'log-probabilities'} cannot be packed: {error}") from None


def unpack_ints(data: bytes) -> array[int]:
    return _to_native(array("i"), data)


def unpack_floats(data: bytes) -> array[float]:
    return _to_native(array("f"), data)


def _to_native(values: array[Any], data: bytes) -> array[Any]:
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
