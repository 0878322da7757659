"""The tokens of one rollout: the exact ids that were trained on, row by row, with what is known of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lightning_dashboard.attempt_reader import ReadAttempt, read_attempt
from lightning_dashboard.credit_reader import RoleCredit, read_credit
from lightning_dashboard.query import ViewQuery
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_dashboard.token_text import token_texts
from lightning_hub.trajectories.breaks import Opening, openings
from lightning_hub.trajectories.trajectory import Trajectory

#: Tokens of one row that are sent.
_MOST_TOKENS = 20_000


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """One attempt's rows. Learner's numbers are kept for steps only, so they come as the means of its step."""
    run = runs.open(query.require("run"))
    read = read_attempt(run, query.require("rollout"), query.integer("attempt"))
    earned = read_credit(run, read)
    rows = [
        _describe_row(run, credit, place, opening)
        for credit, opened in ((each, _openings(read, each)) for each in earned)
        for place, opening in enumerate(opened)
    ]
    return {
        "id": read.attempt.id,
        "attempt": read.attempt.attempt,
        "rows": rows,
        "credit": _credit_by_call(rows),
        "missing": read.missing,
        "step_means": _step_means(run, read, [each.role_rollout.role for each in earned]),
        "settings": {
            "advantage": {
                each.role_rollout.role: run.rollouts().settings.credit_of(each.role_rollout.role).advantage
                for each in earned
            }
        },
    }


def _credit_by_call(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Call -> the advantage of the tokens that it sampled, where it is known."""
    found = {
        piece["call"]: row["advantages"][piece["start"]]
        for row in rows
        if row["advantages"] is not None
        for piece in row["pieces"]
        if piece["start"] < len(row["advantages"])
    }
    return {call: value for call, value in found.items() if value is not None}


def _openings(read: ReadAttempt, credit: RoleCredit) -> list[Opening | None]:
    """For each row of a role why it was opened; None for its first."""
    rows = credit.role_rollout.trajectories
    found = {each.call: each for each in openings(rows, read.calls)}
    return [found.get(row.calls[0]) for row in rows]


def _describe_row(run: RunReader, credit: RoleCredit, place: int, opening: Opening | None) -> dict[str, Any]:
    row = credit.role_rollout.trajectories[place]
    end = min(len(row.tokens), _MOST_TOKENS)
    ids = row.tokens[:end].tolist()
    return {
        "role": row.role,
        "length": len(row.tokens),
        "sampled": int(row.mask.sum()),
        "temperature": row.temperature,
        "ids": ids,
        "texts": token_texts(run, ids),
        "mask": row.mask[:end].astype(int).tolist(),
        "trained": credit.role_rollout.trained[place][:end].astype(int).tolist(),
        "logprobs": sampled_values(row, row.logprobs, end),
        "versions": sampled_values(row, row.versions, end),
        "advantages": None if credit.advantages is None else sampled_values(row, credit.advantages[place], end),
        "missing": credit.missing,
        "pieces": [
            {
                "call": each.call,
                "start": each.start,
                "end": each.end,
                "finish": each.finish_reason,
                "constraint": each.constraint,
            }
            for each in row.pieces
        ],
        "opening": None if opening is None else _describe_opening(opening),
        "differs_at": row.broke.position if row.broke is not None else None,
    }


def _describe_opening(opening: Opening) -> dict[str, Any]:
    return {"reason": str(opening.reason), "previous": opening.previous, "is_fault": opening.reason.is_fault}


def sampled_values(row: Trajectory, values: Any, end: int | None = None) -> list[float | int | None]:
    """The values of its sampled tokens, of the first `end` of them all; None at others."""
    return [
        value if sampled and math.isfinite(value) else None
        for value, sampled in zip(np.asarray(values[:end]).tolist(), row.mask[:end].tolist(), strict=True)
    ]


def _step_means(run: RunReader, read: ReadAttempt, roles: list[str]) -> dict[str, dict[str, float | None]]:
    """Role -> entropy and divergence of the learner from the sampler, on average over its tokens of the step."""
    step = read.attempt.group.partition("-")[0]
    metrics = next((each for each in run.steps() if step.isdigit() and each["step"] == int(step)), {})
    return {
        role: {name: metrics.get(f"{name}/{role or 'none'}", metrics.get(name)) for name in ("entropy", "kl_sampler")}
        for role in roles
    }
