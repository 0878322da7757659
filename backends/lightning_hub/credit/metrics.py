"""Signals: what a batch shows of itself, as numbers for a step's metrics, for the whole batch and by role."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lightning_hub.backend import Row
from lightning_hub.credit.advantages import Credited, groups, tells
from lightning_hub.trajectories.breaks import openings
from lightning_hub.trajectories.role_rollout import Part
from lightning_hub.trajectories.trajectory import TRUNCATED


def measure(
    scores: Sequence[float],
    parts: Sequence[Part],
    made: Mapping[int, Credited],
    rows: Sequence[Row],
    version: int,
) -> dict[str, float]:
    """Metrics by name, and by name and '/ROLE'.

    `scores`: of the rollouts, as people see them; `made`: by the id of its part; `version`: the model's now.

    groups, groups_without_signal, rollouts_trained, rows, rows_per_rollout, tokens_trained, tokens_masked (sampled and
    not trained), tokens_masked_length (of those, for `length.*`), tokens_context, rewards_missing, reward_mean,
    reward_std, advantage_std, staleness_mean and staleness_max (in versions), completions_truncated (share),
    breaks/REASON; by role only: rollouts, in which it spoke.
    """
    counted = _counted(parts, made)
    signal = _of(parts, made, rows, version) | _spread([each for each in scores if math.isfinite(each)])
    whole: Counter[str] = Counter(groups=0, groups_without_signal=0)
    for counts in counted.values():
        whole.update(counts)
    signal |= whole
    signal["rollouts_trained"] = float(len({row.rollout for row in rows}))
    for role, counts in counted.items():
        of_role = [part for part in parts if part.role == role]
        own = _of(of_role, made, [row for row in rows if row.role == role], version) | counts
        own |= _spread([part.reward for part in of_role if part.reward is not None]) | {"rollouts": float(len(of_role))}
        signal |= {f"{name}/{role or 'none'}": value for name, value in own.items()}
    return signal


def _of(parts: Sequence[Part], made: Mapping[int, Credited], rows: Sequence[Row], version: int) -> dict[str, float]:
    """What some parts, and the rows that came of them, show."""
    rewarded = [part for part in parts if id(part) in made]
    trained = sum(int(np.count_nonzero(row.weights)) for row in rows)
    rollouts = len({row.rollout for row in rows})
    pieces = [piece for part in parts for _, _, piece in part.pieces()]
    signal: dict[str, float] = {
        "rows": len(rows),
        "rows_per_rollout": len(rows) / rollouts if rollouts else 0.0,
        "tokens_trained": trained,
        "tokens_masked": sum(part.sampled() for part in parts) - trained,
        "tokens_masked_length": sum(part.sampled() - sum(int(mask.sum()) for mask in part.trained) for part in parts),
        "tokens_context": sum(len(row.tokens) for row in rows) - trained,
        "completions_truncated": sum(piece.finish_reason == TRUNCATED for piece in pieces) / max(1, len(pieces)),
        "rewards_missing": sum(part.reward is None for part in parts),
        "advantage_std": _deviation(made[id(part)] for part in rewarded),
    }
    return signal | _staleness(parts, version)


def _deviation(made: Iterable[Credited]) -> float:
    """Of the advantages of the sampled tokens."""
    values = [
        array[row.mask] for each in made for array, row in zip(each.advantages, each.part.trajectories, strict=True)
    ]
    return float(np.std(np.concatenate(values))) if values else 0.0


def _staleness(parts: Sequence[Part], version: int) -> dict[str, float]:
    stamps = [row.versions[row.mask] for part in parts for row in part.trajectories]
    known = np.concatenate(stamps) if stamps else np.zeros(0, np.int32)
    late = version - known[known >= 0]
    return {"staleness_mean": float(late.mean()), "staleness_max": float(late.max())} if len(late) else {}


def _counted(parts: Sequence[Part], made: Mapping[int, Credited]) -> dict[str, Counter[str]]:
    """What belongs to one role and costs something to find, so once: role -> groups, those without signal, and rows
    that were opened for each reason, beyond the first of the role in a rollout."""
    counted: dict[str, Counter[str]] = {part.role: Counter(groups=0, groups_without_signal=0) for part in parts}
    for group in groups(each.part for each in made.values()):
        counted[group[0].role].update(groups=1, groups_without_signal=not tells(group))
    for part in parts:
        if len(part.trajectories) > 1:
            found = openings(part.trajectories, part.rollout.calls)
            counted[part.role].update(f"breaks/{str(each.reason).replace(' ', '_')}" for each in found)
    return counted


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"reward_mean": float(np.mean(values)), "reward_std": float(np.std(values))}
