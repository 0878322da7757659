"""The hub's rows in VERL's format: the response begins at the first sampled token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from lightning_hub.backend import Row
from lightning_losses.mini_batches import split_mini_batches
from lightning_sdk.errors import LightningError

#: Names of fields with one number for each token of the response.
ADVANTAGES, WEIGHTS, ROLE = "advantages", "token_weights", "role_index"
#: Name of the batch's extra field with its number of roles.
ROLES = "roles"


def usable_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows with a nonzero weight; the others have a gradient of exactly zero.

    LightningError for rows that were sampled under a constraint: VERL's workers do not support masks.
    """
    kept = [row for row in rows if row.weights.any()]
    for row in kept:
        if row.constraints:
            raise LightningError(
                f"row of rollout {row.rollout!r} was sampled under the constraint {row.constraints[0].constraint[:200]}"
                ": backend verl cannot train on it; leave response_format out, or train with backend=embedded"
            )
    return kept


def list_roles(rows: Sequence[Row]) -> list[str]:
    """The roles of a batch, in the order of their indices."""
    return sorted({row.role for row in rows})


def order_rows(rows: Sequence[Row], steps: int, processes: int) -> list[Row]:
    """The rows in the order in which VERL splits them: for each process, its part of each optimizer step.

    Whole rollouts are split among the steps, with weights scaled as in `split_mini_batches`. Each step is then padded
    with rows of zero weight until all steps and all processes have equally many rows, so that none is dropped.
    """
    mini_batches = split_mini_batches(rows, steps)
    size = -(-max(len(mini_batch.rows) for mini_batch in mini_batches) // processes) * processes
    filled = [_pad([_scale(row, mini_batch.scale) for row in mini_batch.rows], size) for mini_batch in mini_batches]
    filled += [_pad([_scale(rows[0], 0.0)], size)] * (steps - len(mini_batches))
    return [row for process in range(processes) for mini_batch in filled for row in mini_batch[process::processes]]


def _pad(rows: list[Row], size: int) -> list[Row]:
    least = min(rows, key=lambda row: len(row.tokens))
    return rows + [_scale(least, 0.0)] * (size - len(rows))


def _scale(row: Row, scale: float) -> Row:
    return row if scale == 1 else replace(row, weights=row.weights * np.float32(scale))


def columns(rows: Sequence[Row], roles: Sequence[str]) -> TensorDict:
    """The fields that VERL stores: T tokens for each row, of which the last R, the response, begin with the first token
    that counts.

    Each field is one tensor for all rows, which is much faster than a tensor for each row.
    """
    parts = [(row, _first(row)) for row in rows]

    def response(name: str) -> Tensor:
        return _to_jagged([getattr(row, name)[first:] for row, first in parts], np.float32)

    mask = _to_jagged([row.weights[first:] != 0 for row, first in parts], np.int64)
    return TensorDict(
        {
            "prompts": _to_jagged([row.tokens[:first] for row, first in parts], np.int64),
            "responses": _to_jagged([row.tokens[first:] for row, first in parts], np.int64),
            "input_ids": _to_jagged([row.tokens for row in rows], np.int64),
            "position_ids": _to_jagged([np.arange(len(row.tokens)) for row in rows], np.int64),
            "response_mask": mask,
            "loss_mask": mask,
            "rollout_log_probs": response("logprobs"),
            ADVANTAGES: response("advantages"),
            WEIGHTS: response("weights"),
            ROLE: _to_jagged(
                [np.full(len(row.tokens) - first, roles.index(row.role)) for row, first in parts], np.int64
            ),
        },
        batch_size=[len(rows)],
    )


def tag(row: Row) -> dict[str, Any]:
    """What VERL knows about a row without fetching it."""
    return {"seq_len": len(row.tokens), "is_padding": not row.weights.any()}


def _first(row: Row) -> int:
    """Index at which its response begins."""
    counted = np.flatnonzero(row.weights)
    return int(counted[0]) if len(counted) else len(row.tokens) - 1


def _to_jagged(values: Sequence[NDArray[Any]], dtype: type[np.generic]) -> Tensor:
    lengths = [len(each) for each in values]
    joined = torch.from_numpy(np.concatenate(values).astype(dtype))
    ends = torch.from_numpy(np.cumsum([0, *lengths]))
    return torch.nested.nested_tensor_from_jagged(joined, ends, min_seqlen=min(lengths), max_seqlen=max(lengths))
