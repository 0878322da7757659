"""TensorBoard events of scalars, each on disk when its call returns.

They are written here in a few lines of protobuf, because the usual libraries load torch if it is installed, and write
the file in a thread, so that a kill loses data that was reported as flushed.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """One event file in a folder that TensorBoard reads. A later file of the same folder goes on where it ended."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        """With `purge_step`, TensorBoard forgets what earlier files hold from that step on."""
        folder.mkdir(parents=True, exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)
        # TensorBoard reads files in the order of their names.
        self._file = (folder / f"events.out.tfevents.{seconds:010}.{rest:09}").open("xb", buffering=0)
        self._write(_text(3, "brain.Event:2"))
        if purge_step is not None:
            self._write(_number(2, purge_step) + _message(7, _number(1, 1)))  # SessionLog.START

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one value for each tag at this step."""
        summary = b"".join(_message(1, _text(1, tag) + b"\x15" + struct.pack("<f", v)) for tag, v in values.items())
        self._write(_number(2, step) + _message(5, summary))

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        """One TFRecord: length, its checksum, the event with its time, its checksum."""
        data = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (0x82F63B78 if index & 1 else 0)
    return index


_CRC32C = tuple(map(_entry, range(256)))


def _checksum(data: bytes) -> bytes:
    """CRC-32C (Castagnoli), masked as TFRecord asks for."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
