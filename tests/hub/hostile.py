"""Messages that no client of ours sends: replies that cannot be read, events and frames of every wrong kind."""

from __future__ import annotations

import json
import os
import random
import struct
from typing import Any

from lightning_sdk.stream import wire
from lightning_sdk.stream.wire import EventBatch
from tests.hub.hubs import Client, begin, end, meta, raw_call, reply, reward, span


def anthropic_stream(number: str, text: str, **usage: Any) -> bytes:
    """A streamed Message; number and text as JSON spells them."""
    counted = json.dumps({"input_tokens": 3, "output_tokens": 2, **usage})
    events = [
        f'{{"type": "message_start", "message": {{"id": "{number}", "type": "message", "usage": {counted}}}}}',
        '{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}',
        f'{{"type": "content_block_delta", "index": 0, "delta": {{"type": "text_delta", "text": "{text}"}}}}',
        '{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}',
        '{"type": "message_stop"}',
    ]
    return "".join(f"data: {event}\n\n" for event in events).encode()


def replies() -> list[tuple[bool, bytes]]:
    """Whether it was streamed, and a reply that is not as it should be."""
    deep = b"[" * 3000 + b"]" * 3000
    whole = json.dumps(reply()).encode()
    message = b'{"type": "message", "id": %s, "content": %s, "usage": %s, "stop_reason": %s}'
    return [
        (True, anthropic_stream("\\ud800", "a")),
        (True, anthropic_stream("a", "\\udfff")),
        (True, anthropic_stream("a", "a", input_tokens=2**70)),
        (True, anthropic_stream("a", "a", output_tokens="many")),
        (True, b'data: {"type": "message_start"}\n\n'),
        (True, b'data: {"type": "message_start", "message": 3}\n\ndata: {"type": "message_delta", "usage": 3}\n\n'),
        (True, b'data: {"type": "message_start", "message": {}}\n\ndata: [1]\n\n'),
        (True, b"data: " + deep + b"\n\n"),
        (True, b"data: " + whole + b"\n\ndata: {\xff}\n\n"),
        (False, message % (b"{}", b'[{"type": "text", "text": 3}]', b"[]", b"{}")),
        (False, message % (b'"\\ud800"', b'[{"type": "text", "text": "\\ud800"}]', b"{}", b"null")),
        (False, message % (b"1e300", b"3", b'{"input_tokens": 1e300}', b"[1]")),
        (False, whole.replace(b'"chatcmpl-1"', b'"\\ud800"')),
        (False, whole.replace(b"-0.5", b"1e400")),
        (False, whole.replace(b"[1, 2, 3]", b"[1, 2, 99999999999999999999999]")),
        (False, whole.replace(b"[1, 2, 3]", b"[-1, 2.5, null]")),
        (False, whole.replace(b'"4"', deep)),
        (False, whole.replace(b'"4"', b'"\xff\xfe"')),
        (False, deep),
        (False, b""),
        (False, b"\x00" * 1000),
    ]


def message(chance: random.Random, client: Client) -> list[bytes]:
    """The frames of one message that is wrong in some way; some are of this client and in its order."""
    return chance.choice([_frames, _request, _greeting, _batch, _batch, _batch])(chance, client)


def _frames(chance: random.Random, client: Client) -> list[bytes]:
    return [chance.randbytes(chance.randrange(60)) for _ in range(chance.randrange(1, 5))]


def _request(chance: random.Random, client: Client) -> list[bytes]:
    number = chance.choice([1, -1, 2**63, float("inf"), float("nan"), 1e300, None, "x", [1], True])
    method = chance.choice(
        ["status", "lease", "watch", "renew", "tasks", "train", "release", "join", None, 3, "x" * 99]
    )
    params = (
        value(chance, 3)
        if chance.random() < 0.5
        else {
            chance.choice(["runner", "places", "after", "wait", "tasks", "settings", "list", "name", "first"]): value(
                chance, 2
            )
            for _ in range(3)
        }
    )
    return [wire.REQUEST, mutate(chance, pack([number, method, params]))]


def _greeting(chance: random.Random, client: Client) -> list[bytes]:
    told = {"protocol": value(chance, 1), "client": value(chance, 1), "key": value(chance, 1)}
    return [wire.HELLO, mutate(chance, pack(told))]


def _batch(chance: random.Random, client: Client) -> list[bytes]:
    """Under the client's next number, so that it is taken where the hub takes it at all."""
    body = b"".join(event(chance) for _ in range(chance.randrange(1, 4)))
    count = chance.choice([1, 1, 2, 3, 0, 2**32 - 1])
    first = chance.choice([client_next(client), client_next(client), 0, 1, 2**64 - 1])
    header = EventBatch.HEADER.pack(client.id, first, count, len(body), 0)
    return [wire.BATCH, mutate(chance, header) if chance.random() < 0.1 else header, body]


def client_next(client: Client) -> int:
    """The number that the hub expects of a client now, by what it has acknowledged."""
    for kind, content in client.until_quiet(0):
        if kind in {wire.ACK, wire.WELCOME} and isinstance(content, dict):
            client.acked = max(getattr(client, "acked", 0), content["acked"])  # type: ignore[attr-defined]
    return int(getattr(client, "acked", 0)) + 1


def event(chance: random.Random) -> bytes:
    """An event of any kind whose fields are of any kind."""
    key = chance.choice([bytes(16), b"r" * 16, os.urandom(16)])
    good = chance.choice(
        [
            begin(key, "r"),
            end(key),
            reward(key, 1.0),
            span("a", key),
            raw_call(key, chance.choice(replies())[1]),
            [2, key, [meta(), b"{}", "", "", b"", [], 0, 0, "", b""]],
            [chance.randrange(128), key, 1],
        ]
    )
    for place in range(2, len(good)):
        if chance.random() < 0.3:
            good[place] = value(chance, 3)
    packed = pack(good)
    return mutate(chance, packed) if chance.random() < 0.2 else packed


def value(chance: random.Random, depth: int) -> Any:
    """Anything that msgpack can carry."""
    plain: list[Any] = [
        None, True, 0, -1, 2**63, 2**64 - 1, -(2**63), 0.5, float("inf"), float("nan"), 1e300, "", "x", "é" * 300, b"",
        b"\xff" * 20, "ok", "secret", [], {},
    ]  # fmt: skip
    kind = chance.randrange(4) if depth else 0
    if kind == 1:
        return [value(chance, depth - 1) for _ in range(chance.randrange(5))]
    if kind == 2:
        keys: list[Any] = ["k", "task", b"k", 1, -1, None, 0.5, True]
        return {chance.choice(keys): value(chance, depth - 1) for _ in range(chance.randrange(4))}
    if kind == 3 and chance.random() < 0.3:
        return Nested(chance.choice([100, 500, 995, 1500]))
    return chance.choice(plain)


class Nested:
    """Stands for a list so deep that no packer would write it."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


def pack(content: Any) -> bytes:
    """As msgpack, with `Nested` written out."""
    if isinstance(content, Nested):
        return b"\x91" * content.depth + b"\xc0"
    if isinstance(content, list | tuple):
        return (
            struct.pack(">BH", 0xDC, len(content)) + b"".join(map(pack, content))
            if len(content) > 15
            else (bytes([0x90 | len(content)]) + b"".join(map(pack, content)))
        )
    if isinstance(content, dict):
        return bytes([0x80 | len(content)]) + b"".join(pack(k) + pack(v) for k, v in content.items())
    return wire.pack(content)


def mutate(chance: random.Random, data: bytes) -> bytes:
    """With a byte changed, or cut off, or as it is."""
    if not data:
        return data
    place, how = chance.randrange(len(data)), chance.random()
    if how < 0.3:
        return data[:place] + chance.randbytes(1) + data[place + 1 :]
    return data[:place] if how < 0.5 else data
