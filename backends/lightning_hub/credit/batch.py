"""Credit: from finished rollouts to the rows of one update, each sampled token with its advantage and its weight.

Baselines are computed before any filter, and over all rollouts, also those in which the role was silent. A role is
credited and normalised by itself, so its gradient does not depend on what another role said; a role's part of a rollout
is one sequence, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lightning_hub.backend import Row, Scoring
from lightning_hub.credit.advantages import Credited, credited, groups, has_signal, is_frozen, tells
from lightning_hub.credit.metrics import measure
from lightning_hub.findings import findings
from lightning_hub.findings.findings import Finding
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.rewards import counted, score
from lightning_hub.trajectories.role_rollout import Part, parts, silent_parts
from lightning_sdk.errors import NothingToTrain
from lightning_sdk.settings import Settings
from lightning_sdk.settings.ranges import SCHEDULE


@dataclass(frozen=True, slots=True)
class Weighed:
    """A batch, ready for the learner, and what was seen while it was made."""

    rows: list[Row]
    """In the order of the rollouts, and in each rollout in the order in which the rows began."""
    signal: dict[str, float]
    """What `signals.measure` found, and `running_mean/ROLE`."""
    problems: tuple[str, ...] = ()
    """Why calls were left out, one message each."""
    means: dict[str, float] = field(default_factory=dict)
    """Role -> running mean of its rewards, this batch included."""
    flat: bool = False
    """Roles that are trained now or at another step spoke, and the rewards of none of them have a signal."""


def weigh(
    rollouts: Sequence[Rollout],
    settings: Settings,
    *,
    step: int = 1,
    version: int = 0,
    means: Mapping[str, float] | None = None,
    scoring: Scoring | None = None,
    replaced: Collection[str] = (),
) -> Weighed:
    """Rows for one update, from the rollouts that went well or that `failure.*` says to train on.

    Args:
        rollouts: Those of the step, whatever came of them.
        settings: Credit by role, length, aggregation, what to do with failures.
        step: From 1, for the roles' schedules.
        version: The model's now: how much older a token is, is its staleness.
        means: Role -> running mean of its rewards over earlier steps: the last `Weighed.means`.
        scoring: What is asked for values and reference log-probs, where settings need them.
        replaced: Groups that others stand in for: they count for baselines and are measured, and have no rows.

    Raises:
        NothingToTrain: there were rollouts, and they hold nothing to learn from; the message says why.
        RewardError: a reward is not finite.
        SettingError: the settings need scores, and `scoring` gives none.
    """
    used = trained_rollouts(rollouts, settings)
    found, problems = parts(used, settings)
    rewarded = compared_parts(used, found, settings)
    if used and not any(part.steps for part in rewarded):
        raise NothingToTrain(str(_nothing(used, found, problems)))
    means = dict(means or {})
    by_role: dict[str, list[Part]] = {}
    for part in rewarded:
        by_role.setdefault(part.role, []).append(part)
    active = [of_role for of_role in by_role.values() if not is_frozen(of_role[0].credit)]
    flat = bool(active) and not any(has_signal(of_role, means) for of_role in active)
    made = {id(each.part): each for of_role in by_role.values() for each in credited(of_role, settings, means, scoring)}
    count = sum(each.group not in replaced for each in used)
    weights: dict[str, dict[int, float]] = {}
    for role, of_role in by_role.items():
        kept = [part for part in of_role if part.rollout.group not in replaced]
        trained = kept and scheduled(kept[0].credit.schedule, step)
        weights[role] = aggregated(kept, settings, count) if trained else {}
    rows = [row for part in rewarded for row in rows_of(made[id(part)], weights[part.role].get(id(part), 0.0))]
    signal = measure([score(each, settings) for each in used], found, made, rows, version)
    signal["calls_unusable"] = float(len(problems))
    signal["flat"] = float(flat)
    signal |= {f"running_mean/{role or 'none'}": mean for role, mean in means.items()}
    return Weighed(rows, signal, tuple(problems), means, flat)


def flat_groups(rollouts: Sequence[Rollout], settings: Settings) -> set[str]:
    """Groups in which no role earned more in one rollout than in another: there is nothing to compare."""
    used = trained_rollouts(rollouts, settings)
    found, _ = parts(used, settings)
    telling = {group[0].rollout.group for group in groups(compared_parts(used, found, settings)) if tells(group)}
    return {rollout.group for rollout in used} - telling


def scheduled(schedule: str, step: int) -> bool:
    """Whether a role with this `credit.schedule` is trained in a step, from 1."""
    found = SCHEDULE.fullmatch(schedule)
    assert found is not None, schedule  # settings are checked when they are made
    if found["turn"]:
        return (step - 1) // int(found["block"] or 1) % int(found["turns"]) == int(found["turn"]) - 1
    if found["first"]:
        return int(found["first"]) <= step and (not found["last"] or step <= int(found["last"]))
    return schedule == "always"


def aggregated(of_role: Sequence[Part], settings: Settings, rollouts: int) -> dict[int, float]:
    """The weight of each trained token of each part of one role, by the part's id; those without tokens are left out.

    With N rollouts, T trained tokens of the role and T_i of the part, C = `sampling.max_tokens`, w the role's weight:
    'seq-mean-token-sum-norm' w / (N C) (Dr. GRPO, arXiv:2503.20783, listing 1), 'seq-mean-token-sum' w / N,
    'seq-mean-token-mean' w / (N T_i) (GRPO, arXiv:2402.03300, eq. 3), 'token-mean' w / T (DAPO, arXiv:2503.14476,
    eq. 12). Only the first two are unbiased: the others' denominators depend on what was sampled.
    """
    counts = {id(part): sum(int(mask.sum()) for mask in part.trained) for part in of_role}
    weight, kind = of_role[0].credit.weight, settings.algorithm.aggregation
    whole, constant = sum(counts.values()), settings.sampling.max_tokens
    return {
        part: weight
        / {
            "seq-mean-token-sum-norm": rollouts * constant,
            "seq-mean-token-sum": rollouts,
            "seq-mean-token-mean": rollouts * count,
            "token-mean": whole,
        }[kind]
        for part, count in counts.items()
        if count
    }


def compared_parts(used: Sequence[Rollout], found: Sequence[Part], settings: Settings) -> list[Part]:
    """What is compared: the parts with a reward, then those of roles that were silent in a rollout."""
    return [part for part in [*found, *silent_parts(used, found, settings)] if part.reward is not None]


def trained_rollouts(rollouts: Sequence[Rollout], settings: Settings) -> list[Rollout]:
    """Those that went well, and those that failed where `failure.*` says to train on them."""
    return [found for rollout in rollouts if (found := counted(rollout, settings)) is not None]


def rows_of(made: Credited, weight: float) -> list[Row]:
    """The rows of one part; none where nothing of it is trained."""
    rows = []
    for place, (trajectory, mask) in enumerate(zip(made.part.trajectories, made.part.trained, strict=True)):
        if not weight or not mask.any():
            continue
        end = int(np.flatnonzero(mask)[-1]) + 1  # what comes behind the last trained token is not read
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


def _nothing(used: list[Rollout], found: list[Part], problems: list[str]) -> Finding:
    """Why rollouts that went well hold nothing to learn from, and what to do."""
    calls = [call for rollout in used for call in rollout.calls]
    if not calls:
        return findings.no_calls(len(used))
    if not found:
        return findings.none_trainable(calls, len(used), ())
    if problems and not any(part.trajectories for part in found):
        return findings.unusable(problems, sum(call.meta.trainable for call in calls))
    return findings.no_reward(sorted({part.role for part in found}), len(used), True)
