"""Credit: from finished rollouts to the rows of one update, each sampled token with its advantage and its weight.

Baselines are computed before any filter, and over all rollouts, including those in which the role was silent. Each
role is credited and normalised separately, so its gradient does not depend on what another role said. Everything that
a role said in one rollout is one sequence, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lightning_hub.backend import Row, Scoring
from lightning_hub.credit.advantages import (
    RoleAdvantages,
    estimate_advantages,
    groups,
    has_signal,
    is_frozen,
    role_has_signal,
)
from lightning_hub.credit.metrics import batch_metrics
from lightning_hub.findings import findings
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.rewards import rollout_to_train, score
from lightning_hub.trajectories.role_rollout import RoleRollout, role_rollouts, silent_role_rollouts
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.failures.finding import Finding
from lightning_sdk.settings import Settings
from lightning_sdk.settings.schedule import SCHEDULE


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A batch that is ready for the learner, and what was seen while it was built."""

    rows: list[Row]
    """In the order of the rollouts, and in each rollout in the order in which the rows began."""
    metrics: dict[str, float]
    """What `batch_metrics` returns, and `running_mean/ROLE`."""
    problems: tuple[str, ...] = ()
    """Why calls were left out, one message each."""
    means: dict[str, float] = field(default_factory=dict)
    """Role -> running mean of its rewards, this batch included."""
    is_flat: bool = False
    """Some roles that are trained at this step or another spoke, and no rewards of theirs have a signal."""


def build_batch(
    rollouts: Sequence[Rollout],
    settings: Settings,
    *,
    step: int = 1,
    version: int = 0,
    means: Mapping[str, float] | None = None,
    scoring: Scoring | None = None,
    replaced: Collection[str] = (),
) -> TrainingBatch:
    """Rows for one update, from the rollouts that succeeded or that `failure.*` says to train on.

    Args:
        rollouts: All rollouts of the step, with whatever status.
        settings: Credit by role, length, aggregation, and what to do with failures.
        step: From 1, for the roles' schedules.
        version: The model's current version; a token's staleness is how much older it is.
        means: Role -> running mean of its rewards over earlier steps: the previous `TrainingBatch.means`.
        scoring: Computes values and reference log-probs, where settings need them.
        replaced: Groups that were replaced by others: they count for baselines and metrics, and get no rows.

    Raises:
        NothingToTrain: there were rollouts, but nothing to learn from; the message says why.
        RewardError: a reward is not a finite number.
        SettingError: the settings need scores, and `scoring` gives none.
    """
    used = rollouts_to_train(rollouts, settings)
    found, problems = role_rollouts(used, settings)
    rewarded = rewarded_role_rollouts(used, found, settings)
    if used and not any(each.calls for each in rewarded):
        raise NothingToTrain(str(_why_nothing(used, found, problems)))
    means = dict(means or {})
    by_role: dict[str, list[RoleRollout]] = {}
    for role_rollout in rewarded:
        by_role.setdefault(role_rollout.role, []).append(role_rollout)
    active = [of_role for of_role in by_role.values() if not is_frozen(of_role[0].credit)]
    is_flat = bool(active) and not any(role_has_signal(of_role, means) for of_role in active)
    made = {
        id(each.role_rollout): each
        for of_role in by_role.values()
        for each in estimate_advantages(of_role, settings, means, scoring)
    }
    count = sum(each.group not in replaced for each in used)
    weights: dict[str, dict[int, float]] = {}
    for role, of_role in by_role.items():
        kept = [each for each in of_role if each.rollout.group not in replaced]
        trained = kept and is_scheduled(kept[0].credit.schedule, step)
        weights[role] = token_weights(kept, settings, count) if trained else {}
    rows = [row for each in rewarded for row in rows_of(made[id(each)], weights[each.role].get(id(each), 0.0))]
    metrics = batch_metrics([score(each, settings) for each in used], found, made, rows, version)
    metrics["calls_unusable"] = float(len(problems))
    metrics["flat"] = float(is_flat)
    metrics |= {f"running_mean/{role or 'none'}": mean for role, mean in means.items()}
    return TrainingBatch(rows, metrics, tuple(problems), means, is_flat)


def flat_groups(rollouts: Sequence[Rollout], settings: Settings) -> set[str]:
    """Groups in which no role earned more in one rollout than in another, so that there is nothing to compare."""
    used = rollouts_to_train(rollouts, settings)
    found, _ = role_rollouts(used, settings)
    telling = {
        group[0].rollout.group for group in groups(rewarded_role_rollouts(used, found, settings)) if has_signal(group)
    }
    return {rollout.group for rollout in used} - telling


def is_scheduled(schedule: str, step: int) -> bool:
    """Whether a role with this `credit.schedule` is trained in a step; steps count from 1."""
    found = SCHEDULE.fullmatch(schedule)
    assert found is not None, schedule  # settings are checked when they are made
    if found["turn"]:
        return (step - 1) // int(found["block"] or 1) % int(found["turns"]) == int(found["turn"]) - 1
    if found["first"]:
        return int(found["first"]) <= step and (not found["last"] or step <= int(found["last"]))
    return schedule == "always"


def token_weights(of_role: Sequence[RoleRollout], settings: Settings, rollouts: int) -> dict[int, float]:
    """The weight of a trained token in each role rollout of one role, by its `id()`; those without tokens are left out.

    With N rollouts, T trained tokens of the role, T_i of them here, C = `sampling.max_tokens` and w the role's weight:
    'seq-mean-token-sum-norm' w / (N C) (Dr. GRPO, arXiv:2503.20783, listing 1), 'seq-mean-token-sum' w / N,
    'seq-mean-token-mean' w / (N T_i) (GRPO, arXiv:2402.03300, eq. 3), 'token-mean' w / T (DAPO, arXiv:2503.14476,
    eq. 12). Only the first two are unbiased: the others' denominators depend on what was sampled.
    """
    counts = {id(each): sum(int(mask.sum()) for mask in each.trained) for each in of_role}
    weight, kind = of_role[0].credit.weight, settings.algorithm.aggregation
    whole, constant = sum(counts.values()), settings.sampling.max_tokens
    return {
        key: weight
        / {
            "seq-mean-token-sum-norm": rollouts * constant,
            "seq-mean-token-sum": rollouts,
            "seq-mean-token-mean": rollouts * count,
            "token-mean": whole,
        }[kind]
        for key, count in counts.items()
        if count
    }


def rewarded_role_rollouts(
    used: Sequence[Rollout], found: Sequence[RoleRollout], settings: Settings
) -> list[RoleRollout]:
    """What is compared: role rollouts with a reward, first of roles that spoke, then of roles that were silent."""
    return [each for each in [*found, *silent_role_rollouts(used, found, settings)] if each.reward is not None]


def rollouts_to_train(rollouts: Sequence[Rollout], settings: Settings) -> list[Rollout]:
    """The rollouts that succeeded, and failed ones that `failure.*` says to train on."""
    return [found for rollout in rollouts if (found := rollout_to_train(rollout, settings)) is not None]


def rows_of(made: RoleAdvantages, weight: float) -> list[Row]:
    """The rows of one role rollout; none if nothing of it is trained."""
    rows = []
    source = made.role_rollout
    for place, (trajectory, mask) in enumerate(zip(source.trajectories, source.trained, strict=True)):
        if not weight or not mask.any():
            continue
        end = int(np.flatnonzero(mask)[-1]) + 1  # what follows the last trained token is not read
        known = trajectory.versions[mask & (trajectory.versions >= 0)]
        rows.append(
            Row(
                tokens=trajectory.tokens[:end],
                weights=np.where(mask[:end], np.float32(weight), np.float32(0)),
                advantages=np.where(mask[:end], made.advantages[place][:end], np.float32(0)),
                logprobs=trajectory.logprobs[:end],
                temperature=trajectory.temperature,
                version=int(known.min()) if len(known) else -1,
                role=trajectory.role,
                rollout=trajectory.rollout,
                returns=None if made.returns is None else made.returns[place][:end],
                values=None if made.values is None else made.values[place][:end],
                constraints=trajectory.constraints(end),
            )
        )
    return rows


def _why_nothing(used: list[Rollout], found: list[RoleRollout], problems: list[str]) -> Finding:
    """Why there is nothing to learn from rollouts that succeeded, and what to do."""
    calls = [call for rollout in used for call in rollout.calls]
    if not calls:
        return findings.no_calls(len(used))
    if not found:
        return findings.none_trainable(calls, len(used), ())
    if problems and not any(each.trajectories for each in found):
        return findings.unusable_calls(problems, sum(call.meta.trainable for call in calls))
    return findings.no_reward(sorted({each.role for each in found}), len(used), True)
