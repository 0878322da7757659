"""Batches on the way to the learner's process: msgpack, with arrays packed as in `lightning_sdk.stream.wire`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Batch, Constrained, Objective, Pair, Row
from lightning_sdk.stream.wire import pack, unpack

_ARRAYS = (
    ("tokens", "<i4"),
    ("weights", "<f4"),
    ("advantages", "<f4"),
    ("logprobs", "<f4"),
    ("returns", "<f4"),
    ("values", "<f4"),
)


def pack_batch(batch: Batch) -> bytes:
    """`unpack_batch` undoes it."""
    return pack([batch.step, str(batch.objective), [list(pair) for pair in batch.pairs], _pack_rows(batch.rows)])


def unpack_batch(data: bytes) -> Batch:
    """ValueError if `data` is not a packed batch."""
    try:
        step, objective, pairs, rows = unpack(data)
        unpacked = tuple(Pair(*map(str, pair)) for pair in pairs)
        return Batch(int(step), _unpack_rows(rows), Objective(objective), unpacked)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"not a batch: {error}") from None


def pack_question(rows: Sequence[Row], what: str) -> bytes:
    """The arguments of `Scoring.score`; `unpack_question` undoes it."""
    return pack([what, _pack_rows(rows)])


def unpack_question(data: bytes) -> tuple[list[Row], str]:
    """ValueError if `data` is not a packed question."""
    try:
        what, rows = unpack(data)
        return _unpack_rows(rows), str(what)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"not rows to be scored: {error}") from None


def pack_scores(scores: Sequence[NDArray[np.float32]]) -> list[bytes]:
    """Plain data for a reply; `unpack_scores` undoes it."""
    return [np.asarray(each, "<f4").tobytes() for each in scores]


def unpack_scores(packed: Sequence[bytes]) -> list[NDArray[np.float32]]:
    return [np.frombuffer(each, "<f4").astype("f4") for each in packed]


def _pack_rows(rows: Sequence[Row]) -> list[Any]:
    """The rows, with each distinct constraint once: a schema may be longer than what was sampled under it."""
    texts = list(dict.fromkeys(each.constraint for row in rows for each in row.constraints))
    places = {text: place for place, text in enumerate(texts)}
    return [texts, [_pack_row(row, places) for row in rows]]


def _unpack_rows(packed: Sequence[Any]) -> list[Row]:
    texts, rows = packed
    return [_unpack_row(row, [str(text) for text in texts]) for row in rows]


def _pack_row(row: Row, places: Mapping[str, int]) -> list[Any]:
    found = ((getattr(row, name), kind) for name, kind in _ARRAYS)
    arrays = [None if array is None else np.asarray(array, kind).tobytes() for array, kind in found]
    constraints = [[each.start, each.end, places[each.constraint]] for each in row.constraints]
    return [*arrays, row.temperature, row.version, row.role, row.rollout, constraints]


def _unpack_row(fields: list[Any], texts: Sequence[str]) -> Row:
    *packed, temperature, version, role, rollout, constraints = fields
    tokens, weights, advantages, logprobs, returns, values = (
        None if data is None else np.frombuffer(data, kind).astype(kind[1:])
        for data, (_, kind) in zip(packed, _ARRAYS, strict=True)
    )
    if tokens is None or weights is None or advantages is None or logprobs is None:
        raise ValueError("a row lacks tokens, weights, advantages or log-probabilities")
    return Row(
        tokens=tokens,
        weights=weights,
        advantages=advantages,
        logprobs=logprobs,
        temperature=float(temperature),
        version=int(version),
        role=str(role),
        rollout=str(rollout),
        returns=returns,
        values=values,
        constraints=tuple(Constrained(int(start), int(end), texts[place]) for start, end, place in constraints),
    )
