"""Metrics of a training batch: numbers for a step's metrics, for the whole batch and by role."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lightning_hub.backend import Row
from lightning_hub.credit.advantages import RoleAdvantages, groups, has_signal
from lightning_hub.trajectories.breaks import openings
from lightning_hub.trajectories.role_rollout import RoleRollout
from lightning_hub.trajectories.trajectory import TRUNCATED


def batch_metrics(
    scores: Sequence[float],
    role_rollouts: Sequence[RoleRollout],
    made: Mapping[int, RoleAdvantages],
    rows: Sequence[Row],
    version: int,
) -> dict[str, float]:
    """Metrics by name, and by name and '/ROLE'.

    `scores`: the rollouts', as people see them; `made`: by the `id()` of its role rollout; `version`: the model's.

    groups, groups_without_signal, rollouts_trained, rows, rows_per_rollout, tokens_trained, tokens_masked (sampled and
    not trained), tokens_masked_length (of those, for `length.*`), tokens_context, rewards_missing, reward_mean,
    reward_std, advantage_std, staleness_mean and staleness_max (in versions), completions_truncated (share),
    breaks/REASON; and, by role only, rollouts (those in which it spoke).
    """
    counted = _count_by_role(role_rollouts, made)
    metrics = _row_metrics(role_rollouts, made, rows, version) | _reward_metrics(
        [each for each in scores if math.isfinite(each)]
    )
    whole: Counter[str] = Counter(groups=0, groups_without_signal=0)
    for counts in counted.values():
        whole.update(counts)
    metrics |= whole
    metrics["rollouts_trained"] = float(len({row.rollout for row in rows}))
    for role, counts in counted.items():
        of_role = [each for each in role_rollouts if each.role == role]
        own = _row_metrics(of_role, made, [row for row in rows if row.role == role], version) | counts
        own |= _reward_metrics([each.reward for each in of_role if each.reward is not None]) | {
            "rollouts": float(len(of_role))
        }
        metrics |= {f"{name}/{role or 'none'}": value for name, value in own.items()}
    return metrics


def _row_metrics(
    role_rollouts: Sequence[RoleRollout], made: Mapping[int, RoleAdvantages], rows: Sequence[Row], version: int
) -> dict[str, float]:
    """Metrics of some role rollouts and of the rows made from them."""
    rewarded = [each for each in role_rollouts if id(each) in made]
    trained = sum(int(np.count_nonzero(row.weights)) for row in rows)
    rollouts = len({row.rollout for row in rows})
    pieces = [piece for each in role_rollouts for _, _, piece in each.pieces()]
    metrics: dict[str, float] = {
        "rows": len(rows),
        "rows_per_rollout": len(rows) / rollouts if rollouts else 0.0,
        "tokens_trained": trained,
        "tokens_masked": sum(each.count_sampled() for each in role_rollouts) - trained,
        "tokens_masked_length": sum(
            each.count_sampled() - sum(int(mask.sum()) for mask in each.trained) for each in role_rollouts
        ),
        "tokens_context": sum(len(row.tokens) for row in rows) - trained,
        "completions_truncated": sum(piece.finish_reason == TRUNCATED for piece in pieces) / max(1, len(pieces)),
        "rewards_missing": sum(each.reward is None for each in role_rollouts),
        "advantage_std": _deviation(made[id(each)] for each in rewarded),
    }
    return metrics | _staleness(role_rollouts, version)


def _deviation(made: Iterable[RoleAdvantages]) -> float:
    """The standard deviation of the advantages of sampled tokens."""
    values = [
        array[row.mask]
        for each in made
        for array, row in zip(each.advantages, each.role_rollout.trajectories, strict=True)
    ]
    return float(np.std(np.concatenate(values))) if values else 0.0


def _staleness(role_rollouts: Sequence[RoleRollout], version: int) -> dict[str, float]:
    stamps = [row.versions[row.mask] for each in role_rollouts for row in each.trajectories]
    known = np.concatenate(stamps) if stamps else np.zeros(0, np.int32)
    late = version - known[known >= 0]
    return {"staleness_mean": float(late.mean()), "staleness_max": float(late.max())} if len(late) else {}


def _count_by_role(role_rollouts: Sequence[RoleRollout], made: Mapping[int, RoleAdvantages]) -> dict[str, Counter[str]]:
    """Role -> number of groups, of groups without a signal, and of rows opened for each reason, beyond the role's first
    row in a rollout. Computed once, since it is costly."""
    counted: dict[str, Counter[str]] = {each.role: Counter(groups=0, groups_without_signal=0) for each in role_rollouts}
    for group in groups(each.role_rollout for each in made.values()):
        counted[group[0].role].update(groups=1, groups_without_signal=not has_signal(group))
    for role_rollout in role_rollouts:
        if len(role_rollout.trajectories) > 1:
            found = openings(role_rollout.trajectories, role_rollout.rollout.calls)
            counted[role_rollout.role].update(f"breaks/{str(each.reason).replace(' ', '_')}" for each in found)
    return counted


def _reward_metrics(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"reward_mean": float(np.mean(values)), "reward_std": float(np.std(values))}
