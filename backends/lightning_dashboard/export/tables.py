"""Three tables of a run: rollouts, calls, and the token sequences that were trained on, as rows of plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from lightning_dashboard.attempt_reader import read_json, read_reply, read_request
from lightning_dashboard.credit_reader import RoleCredit
from lightning_dashboard.export.records import ExportedRollout
from lightning_dashboard.views.tokens import sampled_values
from lightning_sdk.stream.wire import unpack_floats, unpack_ints
from lightning_sdk.trace.call import Call, Choice

Row = dict[str, Any]
_ROLLOUT = {"run": "string", "rollout": "string", "attempt": "int32"}
"""What every table begins with."""
TABLES: dict[str, dict[str, Any]] = {
    "rollouts": {
        **_ROLLOUT,
        "mode": "string",
        "step": "int32",
        "evaluation": "string",
        "group": "string",
        "task_id": "int64",
        "task": "json",
        "status": "string",
        "error": "string",
        "answer": "string",
        "reward": "float64",
        "role_rewards": [{"role": "string", "reward": "float64"}],
        "rewards": [{"role": "string", "name": "string", "value": "float64", "why": "string", "counts": "bool"}],
        "started": "float64",
        "seconds": "float64",
        "runner": "string",
        "missing": "string",
    },
    "calls": {
        **_ROLLOUT,
        "call": "string",
        "parent": "string",
        "role": "string",
        "trainable": "bool",
        "model": "string",
        "path": "string",
        "framework": "string",
        "candidate": "string",
        "status": "string",
        "error": "string",
        "problem": "string",
        "http_status": "int32",
        "streamed": "bool",
        "started": "float64",
        "seconds": "float64",
        "input_tokens": "int64",
        "output_tokens": "int64",
        "request": "json",
        "messages": "json",
        "prompt_ids": ["int32"],
        "choices": [
            {
                "index": "int32",
                "message": "json",
                "finish_reason": "string",
                "token_ids": ["int32"],
                "logprobs": ["float32"],
            }
        ],
    },
    "tokens": {
        **_ROLLOUT,
        "step": "int32",
        "group": "string",
        "role": "string",
        "row": "int32",
        "reward": "float64",
        "temperature": "float64",
        "ids": ["int32"],
        "mask": ["bool"],
        "trained": ["bool"],
        "logprobs": ["float32"],
        "versions": ["int32"],
        "advantages": ["float32"],
        "missing": "string",
        "pieces": [
            {"call": "string", "start": "int64", "end": "int64", "finish_reason": "string", "constraint": "string"}
        ],
    },
}
"""Table -> its columns with their types: a name, a list of one type, or the fields of a struct. 'json': any value."""


def rollout_rows(exported: ExportedRollout) -> Iterator[Row]:
    """The one row of a rollout."""
    facts, read = exported.facts, exported.read
    yield {
        **_name(exported),
        **{name: facts[name] for name in ("mode", "step", "evaluation", "group")},
        "task_id": read.attempt.task_id,
        "task": read_json(read.attempt.task),
        "status": read.attempt.status,
        "error": read.attempt.error,
        "answer": read.attempt.output or read.found.answer,
        "reward": facts["reward"],
        "role_rewards": [{"role": role, "reward": reward} for role, reward in exported.role_rewards.items()],
        "rewards": [
            {"role": each.role, "name": each.name, "value": each.value, "why": each.why, "counts": each.counts}
            for each in read.rewards
        ],
        **{name: facts[name] for name in ("started", "seconds", "runner")},
        "missing": read.missing,
    }


def call_rows(exported: ExportedRollout, role: str = "") -> Iterator[Row]:
    """One row for each call, in the order in which they began; only those of `role`, if one is given."""
    for call in exported.read.calls:
        if role in {"", call.meta.role}:
            yield {**_name(exported), **_describe_call(call)}


def token_rows(exported: ExportedRollout, role: str = "") -> Iterator[Row]:
    """One row for each token sequence of a role; only those of `role`, if one is given."""
    for credit in exported.credit:
        if role in {"", credit.role_rollout.role}:
            for place in range(len(credit.role_rollout.trajectories)):
                yield {
                    **_name(exported),
                    **{name: exported.facts[name] for name in ("step", "group")},
                    **_describe_sequence(credit, place),
                }


ROWS: dict[str, Callable[[ExportedRollout, str], Iterator[Row]]] = {
    "rollouts": lambda exported, _: rollout_rows(exported),
    "calls": call_rows,
    "tokens": token_rows,
}
"""Table -> its rows of one exported rollout, and of one role if it is not ''."""


def _name(exported: ExportedRollout) -> Row:
    attempt = exported.read.attempt
    return {"run": exported.run.name, "rollout": attempt.id, "attempt": attempt.attempt}


def _describe_call(call: Call) -> Row:
    meta = call.meta
    return {
        "call": meta.id,
        **{name: getattr(meta, name) for name in ("parent", "role", "trainable")},
        "model": call.model,
        **{name: getattr(meta, name) for name in ("path", "framework", "candidate", "status", "error")},
        "problem": call.problem,
        **{name: getattr(meta, name) for name in ("http_status", "streamed")},
        "started": meta.started_ns / 1e9,
        "seconds": (meta.ended_ns - meta.started_ns) / 1e9,
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "request": read_json(call.request),
        "messages": read_request(call),
        "prompt_ids": list(unpack_ints(call.prompt_ids)),
        "choices": [_describe_choice(each) for each in call.choices],
    }


def _describe_choice(choice: Choice) -> Row:
    return {
        "index": choice.index,
        "message": read_reply(choice),
        "finish_reason": choice.finish_reason,
        "token_ids": list(unpack_ints(choice.token_ids)),
        "logprobs": [each if math.isfinite(each) else None for each in unpack_floats(choice.logprobs)],
    }


def _describe_sequence(credit: RoleCredit, place: int) -> Row:
    own = credit.role_rollout
    row, advantages = own.trajectories[place], credit.advantages
    return {
        "role": own.role,
        "row": place,
        "reward": own.reward,
        "temperature": row.temperature,
        "ids": row.tokens.tolist(),
        "mask": row.mask.tolist(),
        "trained": own.trained[place].tolist(),
        "logprobs": sampled_values(row, row.logprobs),
        "versions": sampled_values(row, row.versions),
        "advantages": None if advantages is None else sampled_values(row, advantages[place]),
        "missing": credit.missing,
        "pieces": [
            {
                "call": each.call,
                "start": each.start,
                "end": each.end,
                "finish_reason": each.finish_reason,
                "constraint": each.constraint,
            }
            for each in row.pieces
        ],
    }
