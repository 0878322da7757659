"""Advantages: one number for each sampled token, from rewards by role and group, and each token's share in the loss.

Baselines are computed before any filter. Every sampled token that is trained on has the same weight, 1 / total, so the
gradient is the same whether a rollout arrives as one row or as many, and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hub import findings
from lightning_hub.backend import Row
from lightning_hub.findings import Finding
from lightning_hub.rollout import Rollout
from lightning_hub.trajectory import Break, Trajectory, merge
from lightning_hub.transition import Transition, UnusableCall, transitions
from lightning_sdk.call import Status
from lightning_sdk.errors import NothingToTrain, RewardError
from lightning_sdk.settings import Algorithm


@dataclass(frozen=True, slots=True)
class Weighed:
    """A batch, ready for the learner, and what was seen while it was made."""

    rows: list[Row]
    """In the order of the rollouts, and in each rollout in the order in which the rows began."""
    signal: dict[str, float]
    """groups, groups_without_signal, rollouts_trained, rows, rows_per_rollout, tokens_trained, tokens_context,
    rewards_missing, calls_unusable, advantage_std, reward_mean, reward_std, reward_mean/ROLE, reward_std/ROLE."""
    problems: tuple[str, ...] = ()
    """Why calls were left out, one message each."""
    breaks: tuple[Break, ...] = ()
    """Where a row was opened although another one nearly fitted."""


@dataclass(slots=True)
class _Part:
    """What one role did in one rollout."""

    rollout: Rollout
    role: str
    reward: float | None
    trajectories: list[Trajectory]
    advantage: float = 0.0


def weigh(rollouts: Sequence[Rollout], algorithm: Algorithm) -> Weighed:
    """Rows for one update, from rollouts of which only those with status ok count.

    A role's reward is its own plus that of the whole rollout; a role with neither is left out
    and counted. NothingToTrain if rollouts went well but hold nothing to learn from, with the reason; RewardError for
    a reward that is not finite.
    """
    ok = [rollout for rollout in rollouts if rollout.status == Status.OK]
    problems: list[str] = []
    parts = [part for rollout in ok for part in _parts(rollout, problems)]
    groups = _groups(parts)
    for group in groups:
        rewards = [float(part.reward) for part in group if part.reward is not None]
        for part, value in zip(group, advantages(rewards, algorithm.advantage), strict=True):
            part.advantage = float(value)
    trained = [part for part in parts if part.reward is not None and part.trajectories]
    if ok and not trained:
        raise NothingToTrain(str(_nothing(ok, parts, problems)))
    rows = _rows(trained)
    signal = _signal(ok, parts, groups, trained, rows) | {"calls_unusable": float(len(problems))}
    breaks = tuple(each.broke for part in trained for each in part.trajectories if each.broke)
    return Weighed(rows, signal, tuple(problems), breaks)


def advantages(rewards: Sequence[float], algorithm: str) -> NDArray[np.float64]:
    """[G] advantages of the G rewards of one group; all 0 for a group of one or with equal rewards.

    'rloo': r_i minus the mean of the other G - 1 (the RLOO estimator of arXiv:2402.14740).
    'grpo': (r_i - mean) / (std + 1e-6) (arXiv:2402.03300, section 4.1.2), std with G - 1 in the denominator, as VERL
    and TRL compute it.
    """
    # Rewards are float32: sums that only differ by rounding in float64 are equal, and carry no signal.
    values = np.asarray(rewards, np.float32).astype(np.float64)
    if len(values) < 2 or not np.ptp(values):
        return np.zeros(len(values))
    centred = values - values.mean()
    if algorithm == "grpo":
        return np.asarray(centred / (values.std(ddof=1) + 1e-6))
    return np.asarray(centred * (len(values) / (len(values) - 1)))


def _parts(rollout: Rollout, problems: list[str]) -> Iterator[_Part]:
    """One part for each role that made a trainable call, in the order of first calls."""
    made: dict[str, list[Transition]] = {}
    for call in rollout.calls:
        if not call.meta.trainable:
            continue
        of_role = made.setdefault(call.meta.role, [])
        try:
            of_role += transitions(call)
        except UnusableCall as error:
            problems.append(str(error))
    for role, of_role in made.items():
        yield _Part(rollout, role, reward_of(rollout, role), merge(of_role, rollout.id))


def reward_of(rollout: Rollout, role: str) -> float | None:
    """The role's own reward plus that of the whole rollout; None if there is neither."""
    given = [rollout.rewards[name] for name in sorted({"", role}) if name in rollout.rewards]
    reward = sum(given) if given else None
    if reward is not None and not math.isfinite(reward):
        raise RewardError(f"rollout {rollout.id} has reward {reward} for {role or 'no role'}: not a finite number")
    return reward


def _groups(parts: list[_Part]) -> list[list[_Part]]:
    """Parts of one role in rollouts of one group, rewarded ones only."""
    groups: dict[tuple[str, str], list[_Part]] = {}
    for part in parts:
        if part.reward is not None:
            groups.setdefault((part.rollout.group, part.role), []).append(part)
    return list(groups.values())


def _rows(trained: list[_Part]) -> list[Row]:
    total = sum(int(each.mask.sum()) for part in trained for each in part.trajectories)
    return [_row(each, part.advantage, 1.0 / total) for part in trained for each in part.trajectories]


def _row(trajectory: Trajectory, advantage: float, weight: float) -> Row:
    mask = trajectory.mask
    known = trajectory.versions[mask & (trajectory.versions >= 0)]
    return Row(
        tokens=trajectory.tokens,
        weights=np.where(mask, np.float32(weight), np.float32(0)),
        advantages=np.where(mask, np.float32(advantage), np.float32(0)),
        logprobs=trajectory.logprobs,
        temperature=trajectory.temperature,
        version=int(known.min()) if len(known) else -1,
        role=trajectory.role,
        rollout=trajectory.rollout,
    )


def _signal(
    ok: list[Rollout], parts: list[_Part], groups: list[list[_Part]], trained: list[_Part], rows: list[Row]
) -> dict[str, float]:
    sampled = sum(int(np.count_nonzero(row.weights)) for row in rows)
    count = len({part.rollout.id for part in trained})
    signal: dict[str, float] = {
        "groups": len(groups),
        "groups_without_signal": sum(not any(part.advantage for part in group) for group in groups),
        "rollouts_trained": count,
        "rows": len(rows),
        "rows_per_rollout": len(rows) / count if count else 0.0,
        "tokens_trained": sampled,
        "tokens_context": sum(len(row.tokens) for row in rows) - sampled,
        "rewards_missing": sum(part.reward is None for part in parts),
        "advantage_std": float(np.std([part.advantage for part in trained])) if trained else 0.0,
    }
    by_role: dict[str, list[float]] = {}
    for part in parts:
        if part.reward is not None:
            by_role.setdefault(part.role or "none", []).append(part.reward)
    whole = [rollout.rewards[""] for rollout in ok if "" in rollout.rewards]
    signal |= _spread("", whole or [value for values in by_role.values() for value in values])
    for role, values in by_role.items():
        signal |= _spread("/" + role, values)
    return signal


def _spread(suffix: str, values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"reward_mean{suffix}": float(np.mean(values)), f"reward_std{suffix}": float(np.std(values))}


def _nothing(ok: list[Rollout], parts: list[_Part], problems: list[str]) -> Finding:
    """Why rollouts that went well hold nothing to learn from, and what to do."""
    calls = [call for rollout in ok for call in rollout.calls]
    if not calls:
        return findings.no_calls(len(ok))
    if not parts:
        return findings.none_trainable(calls, len(ok), ())
    if problems and not any(part.trajectories for part in parts):
        return findings.unusable(problems, sum(call.meta.trainable for call in calls))
    return findings.no_reward(sorted({part.role for part in parts}), len(ok), True)
