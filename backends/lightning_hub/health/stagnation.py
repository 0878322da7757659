"""Stagnation: why the reward of a run does not rise although nothing broke."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from lightning_hub.diagnosis.flatness import OPENING, Flatness, FlatReason, flatness, reason_of_equal_rewards
from lightning_hub.health.remedy import choices, other_rate, sentence, to_set, with_setting
from lightning_hub.health.run_record import RunRecord, ScoredRollout, describe_role, role_name
from lightning_hub.health.scale import scale
from lightning_hub.statistics.trend import FEWEST, Trend, trend
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.results.quantity import quantity
from lightning_sdk.settings.combinations import GROUPED

#: Fewest steps for the finding that a reward does not rise; the largest rise that could then have gone unseen, in
#: standard deviations of a rollout's reward; and the share of the way to the best reward from which it is not a fault.
_LONG, UNSEEN, HIGH = 20, 0.2, 0.9
#: Share of groups with equal rewards from which on it is reported.
FLAT = 0.7
#: The same for groups of fewer rollouts than `_LARGE`, which are often equal by chance.
FLAT_SMALL, _LARGE = 0.9, 4
#: Fewest groups for either.
_FLAT_GROUPS = 20
#: Share of a role's rollouts without a reward from which on it is reported.
UNREWARDED = 0.2
#: Fewest steps without any signal at a run's end that are not an accident.
_SILENT = 5


def rewards_of(record: RunRecord, role: str) -> list[tuple[int, float]]:
    """Step and mean reward of a role."""
    return record.series(f"reward_mean/{role}")


def weights_of(record: RunRecord, role: str) -> list[float]:
    """The weight of each step's mean reward: the number of rollouts that it is the mean of."""
    spoken = record.rollouts_by_step(role)
    return [spoken.get(step) or 1.0 for step, _ in rewards_of(record, role)]


def trend_of(record: RunRecord, role: str) -> Trend | None:
    """The trend of a role's mean reward; None for fewer than 3 steps."""
    values = [value for _, value in rewards_of(record, role)]
    return trend(values, weights_of(record, role)) if len(values) > 2 else None


def is_rising(record: RunRecord) -> bool:
    """Whether the reward of some role rises."""
    return any(found is not None and found.rises for role in record.roles if (found := trend_of(record, role)))


def check_roles(record: RunRecord) -> Iterator[Finding]:
    """Roles to train that made no call."""
    missing = [role for role in record.settings.roles if role not in record.roles]
    if not missing or not record.steps:
        return
    others = ", ".join(record.roles)
    named = " ".join(f"--roles {shlex.quote(role)}" for role in record.roles or ("A", "B"))
    yield Finding(
        kind="role filter matched nothing" if len(missing) == len(record.settings.roles) else "role without calls",
        severity=Severity.FATAL if len(missing) == len(record.settings.roles) else Severity.WARNING,
        what=f"in {quantity(len(record.steps), 'step')} no call of the role {', '.join(map(repr, missing))} of the "
        f"setting roles was trained; there were {others or 'none of any role'}.",
        cause="Either the name is misspelt, or that agent had nothing to do in these tasks.",
        remedy=f"Use the names listed here: {named}; `lightning-sdk check agent.py:...` lists them too.",
    )


def check_rewards(record: RunRecord) -> Iterator[Finding]:
    """Roles that never or not always get a reward."""
    without = [
        role for role in record.roles if record.values(f"rewards_missing/{role}") and not _has_reward(record, role)
    ]
    for role in without:
        yield Finding(
            kind="no reward",
            severity=Severity.FATAL if len(without) == len(record.roles) else Severity.WARNING,
            what=f"in {quantity(len(record.steps), 'step')} {describe_role(role)} never had a reward.",
            cause="A reward counts for the role it names, or for all roles if it is one number (credit.signal says "
            "which).",
            remedy="Return one number from the reward function, or a dict with every role in it: {role: number}; or "
            "call lightning.emit_reward(value, role=...) in the agent.",
        )
    for role in (each for each in record.roles if each not in without):
        missing = record.total(f"rewards_missing/{role}")
        given = sum(role in each.rewards for each in record.scored)
        if given and missing > UNREWARDED * (missing + given):
            yield Finding(
                kind="no reward",
                severity=Severity.WARNING,
                what=f"{missing:.0f} of {missing + given:.0f} rollouts of {describe_role(role)} had no reward.",
                cause="They are left out: nothing is learned from them.",
                remedy="Return a number in every case, 0 if nothing was earned.",
            )


def _has_reward(record: RunRecord, role: str) -> bool:
    return bool(rewards_of(record, role))


def check_signal(record: RunRecord) -> Iterator[Finding]:
    """Roles whose rewards are equal within every group, throughout or from some step on."""
    if record.status == "failed" and OPENING in record.error:
        return  # it stopped because of that, and its error says so
    quiet = {role: found for role in record.roles if (found := _silent_stretch(record, role)) is not None}
    for role, (first, last, whole) in quiet.items():
        flat = _flatness(record, role, first)
        only = len(quiet) == len(record.roles)
        finding = flat.finding(
            Severity.FATAL if only and (whole or flat.why != FlatReason.RIGHT) else Severity.WARNING,
            f"{OPENING}: from step {first} to {last} all rewards of {describe_role(role)} were equal within each group"
            f"{_describe_equal(record, role, first, last)}."
            if flat.why != FlatReason.CUT
            else f"{OPENING}: from step {first} to {last} no token of {describe_role(role)} was trained on because of "
            "its length.",
        )
        earlier = f" Some earned more before step {first}: an earlier checkpoint may be the better one to go on from."
        yield replace(finding, remedy=finding.remedy + (earlier if flat.why == FlatReason.WRONG and not whole else ""))


def _flatness(record: RunRecord, role: str, first: int) -> Flatness:
    """Why there was no signal from this step on, from the rollouts or, if none was kept, from the rewards."""
    seen = [each.rewards[role] for each in record.scored if role in each.rewards]
    seen += [value for _, value in rewards_of(record, role)]  # means of steps lie between what was earned
    late = [each for each in record.sample if int(each.group.partition("-")[0]) >= first]
    found = flatness(late, record.settings, record.tasks, role=role_name(role), seen=seen)
    if found is not None:
        return found
    values = [each.rewards[role] for each in record.scored if role in each.rewards and each.step >= first]
    values = values or [value for step, value in rewards_of(record, role) if step >= first]
    untrained = not any(record.values(f"tokens_trained/{role}")[-1:] or [1.0])
    why = (
        FlatReason.CUT if untrained else reason_of_equal_rewards(values, seen, record.settings.evaluation.reward_range)
    )
    reward = values[0] if len(set(values)) == 1 else None
    return Flatness(why=why, role_rollouts=(), settings=record.settings, tasks=record.tasks, rollouts=0, reward=reward)


class _Stretch(NamedTuple):
    """Steps without a signal, up to the end of a run."""

    first: int
    last: int
    whole: bool
    """It is the whole run."""


def _silent_stretch(record: RunRecord, role: str) -> _Stretch | None:
    """The stretch without a signal at the end of the run; None if there is none."""
    flat = dict(record.series_of(role, "groups_without_signal"))
    groups = dict(record.series_of(role, "groups"))
    steps = [step for step, count in groups.items() if count and step in flat]
    trained = dict(record.series(f"tokens_trained/{role}"))
    cut = {step for step, tokens in record.series(f"tokens_masked_length/{role}") if tokens and not trained.get(step)}
    without = [flat[step] >= groups[step] or step in cut for step in steps]
    if not steps or not without[-1]:
        return None
    begin = next((at + 1 for at in range(len(steps) - 1, -1, -1) if not without[at]), 0)
    if begin and (len(steps) - begin < _SILENT or sum(groups[step] for step in steps[begin:]) < _FLAT_GROUPS):
        return None
    if record.credit_of(role).advantage not in GROUPED:
        values = {each.rewards[role] for each in record.scored if role in each.rewards and each.step >= steps[begin]}
        if len(values) != 1 and steps[-1] not in cut:  # tasks are compared with each other
            return None
    return _Stretch(steps[begin], steps[-1], whole=not begin)


def _describe_equal(record: RunRecord, role: str, first: int, last: int) -> str:
    values = {each.rewards[role] for each in record.scored if role in each.rewards and first <= each.step <= last}
    if len(values) == 1:
        return f" (every reward was {values.pop():g})"
    return " (they differ between tasks only)" if values else ""


def check_flat_groups(record: RunRecord) -> Iterator[Finding]:
    """Roles that have a signal in only a few of their groups, and whether the others are too easy or too hard."""
    if len(record.steps) < FEWEST or is_rising(record):
        return
    for role in record.roles:
        grouped = record.credit_of(role).advantage in GROUPED
        if not grouped or _silent_stretch(record, role) is not None:
            continue
        groups = record.groups(role)
        groups = groups[len(groups) // 2 :]  # as the policy is now
        equal = [group for group in groups if len({each.rewards[role] for each in group}) == 1]
        most = FLAT if len(groups) and len(groups[0]) >= _LARGE else FLAT_SMALL
        if len(groups) < _FLAT_GROUPS or len(equal) < most * len(groups):
            continue
        yield _flat_groups(record, role, groups, equal)


def _flat_groups(
    record: RunRecord, role: str, groups: list[list[ScoredRollout]], equal: list[list[ScoredRollout]]
) -> Finding:
    values = [each.rewards[role] for group in groups for each in group]
    middle = (min(values) + max(values)) / 2
    high = sum(group[0].rewards[role] > middle for group in equal) / len(equal)
    easy, hard = high > FLAT, high < 1 - FLAT
    side = "too easy" if easy else "too hard" if hard else "either too easy or too hard"
    number = len(groups[0])
    replaced = "" if record.settings.algorithm.dynamic_sampling else "--set algorithm.dynamic_sampling=2"
    remedy = "Use harder tasks" if easy else "Use easier tasks" if hard else "Use tasks of medium difficulty"
    return Finding(
        kind="most groups flat",
        severity=Severity.WARNING,
        what=f"in {len(equal)} of the last {len(groups)} groups of {describe_role(role)} all {number} rewards were "
        f"equal, in {high:.0%} of these high and in {1 - high:.0%} low.",
        cause=f"Nothing is learned from them: most tasks are {side} for this model.",
        remedy=f"{choices(remedy, with_setting('have such groups replaced', replaced))}; more rollouts of "
        f"each task help too: --set rollouts.group_size={2 * number}.",
    )


def check_flat_reward(record: RunRecord) -> Iterator[Finding]:
    """The last resort: a reward that does not rise, for no known reason."""
    for role in record.roles:
        found, of_role = trend_of(record, role), scale(record, role)
        if found is None or of_role is None or found.n < _LONG or found.rises or found.falls:
            continue
        values = [value for _, value in rewards_of(record, role)]
        gain = found.last - found.first + 2 * found.error
        if gain > UNSEEN * of_role.spread or of_role.place(found.last) >= HIGH:
            continue
        noise = sum(abs(b - a) for a, b in pairwise(values)) / (len(values) - 1)
        more = to_set(record.settings, "rollouts.tasks_per_step", 2 * record.settings.rollouts.tasks_per_step)
        yield Finding(
            kind="reward flat",
            severity=Severity.WARNING,
            what=f"the reward of {describe_role(role)} went from {found.first:.3g} to {found.last:.3g} in {found.n} "
            f"steps, which is no more than its noise (two steps differ by {noise:.2g} on average).",
            cause="There may be too few steps or rollouts to see it, or the steps are too small.",
            remedy=sentence(
                choices(
                    "train longer",
                    with_setting("use more rollouts per step", more),
                    with_setting("take larger steps", other_rate(record, 3.0)),
                )
            ),
        )
