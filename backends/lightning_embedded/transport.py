"""A batch on the way to the learner's process: msgpack, arrays packed little-endian as in `lightning_sdk.wire`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_hub.backend import Batch, Row
from lightning_sdk.wire import pack, unpack

_ARRAYS = (("tokens", "<i4"), ("weights", "<f4"), ("advantages", "<f4"), ("logprobs", "<f4"))


def pack_batch(batch: Batch) -> bytes:
    """`unpack_batch` undoes it."""
    return pack([batch.step, [_pack_row(row) for row in batch.rows]])


def unpack_batch(data: bytes) -> Batch:
    """ValueError if `data` is not a packed batch."""
    try:
        step, rows = unpack(data)
        return Batch(int(step), [_unpack_row(row) for row in rows])
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a batch: {error}") from None


def _pack_row(row: Row) -> list[Any]:
    arrays = [np.asarray(getattr(row, name), kind).tobytes() for name, kind in _ARRAYS]
    return [*arrays, row.temperature, row.version, row.role, row.rollout]


def _unpack_row(fields: list[Any]) -> Row:
    *packed, temperature, version, role, rollout = fields
    tokens, weights, advantages, logprobs = (
        np.frombuffer(data, kind).astype(kind[1:]) for data, (_, kind) in zip(packed, _ARRAYS, strict=True)
    )
    return Row(tokens, weights, advantages, logprobs, float(temperature), int(version), str(role), str(rollout))
