"""Rows of the hub as VERL's rows: what is sampled is the response, from its first sampled token on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lightning_hub.backend import Row
from lightning_losses.dealing import deal

#: Field -> what it holds, one number for each token of the response.
WEIGHTS, ROLE = "token_weights", "role_index"
#: How many roles a batch has, beside its fields.
ROLES = "roles"


def usable(rows: Sequence[Row]) -> list[Row]:
    """The rows with a token that counts; the others have a gradient of exactly zero."""
    return [row for row in rows if row.weights.any()]


def list_roles(rows: Sequence[Row]) -> list[str]:
    """The roles of a batch, in the order of their indices."""
    return sorted({row.role for row in rows})


def dealt(rows: Sequence[Row], steps: int, processes: int) -> list[Row]:
    """The rows in the order in which VERL cuts them: for each process, its part of each optimizer step.

    Whole rollouts are dealt out among the steps, with their weights scaled as `dealing.deal` says; then each step is
    filled up with rows of no weight, until all have as many and every process has the same share: nothing is dropped.
    """
    hands = deal(rows, steps)
    size = -(-max(len(hand.rows) for hand in hands) // processes) * processes
    filled = [_filled([_scaled(row, hand.scale) for row in hand.rows], size) for hand in hands]
    filled += [_filled([_scaled(rows[0], 0.0)], size)] * (steps - len(hands))
    return [row for process in range(processes) for hand in filled for row in hand[process::processes]]


def _filled(rows: list[Row], size: int) -> list[Row]:
    least = min(rows, key=lambda row: len(row.tokens))
    return rows + [_scaled(least, 0.0)] * (size - len(rows))


def _scaled(row: Row, scale: float) -> Row:
    return row if scale == 1 else replace(row, weights=row.weights * np.float32(scale))


def fields(row: Row, role: int, uid: str) -> dict[str, Any]:
    """What VERL keeps of a row, of T tokens of which the last R begin with the first one that counts."""
    counted = np.flatnonzero(row.weights)
    first = int(counted[0]) if len(counted) else len(row.tokens) - 1
    tokens = torch.from_numpy(row.tokens.astype(np.int64))
    mask = torch.from_numpy((row.weights[first:] != 0).astype(np.int64))
    return {
        "prompts": tokens[:first],
        "responses": tokens[first:],
        "input_ids": tokens,
        "position_ids": torch.arange(len(tokens)),
        "response_mask": mask,
        "loss_mask": mask,
        "rollout_log_probs": _response(row.logprobs, first),
        "rm_scores": _response(row.advantages, first),
        WEIGHTS: _response(row.weights, first),
        ROLE: torch.full((len(tokens) - first,), role, dtype=torch.int64),
        "num_turns": 1,
        "uid": uid,
        "extra_fields": {},
        "multi_modal_inputs": {},
        "raw_prompt": [],
        "data_source": "lightning",
    }


def tag(row: Row, made: dict[str, Any], step: int) -> dict[str, Any]:
    """What VERL knows of a row without fetching it."""
    prompt, response = len(made["prompts"]), len(made["responses"])
    return {
        "status": "success",
        "prompt_len": prompt,
        "response_len": response,
        "seq_len": prompt + response,
        "global_steps": step,
        "min_global_steps": max(0, row.version),
        "max_global_steps": max(0, row.version),
        "is_padding": not row.weights.any(),
    }


def _response(values: Any, first: int) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[first:], dtype=np.float32))
