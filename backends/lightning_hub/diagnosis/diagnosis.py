"""The diagnosis of a round of rollouts: facts about the agent for a table, and what is wrong with it.

Pure: rollouts in, facts and findings out. `lightning-sdk check` prints both; the first round and step 1 of every
training are diagnosed too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_hub.credit.estimators import dr_grpo
from lightning_hub.diagnosis import leak, mixing, shortcut
from lightning_hub.diagnosis.flatness import flatness, flatness_of_rewards
from lightning_hub.findings import findings
from lightning_hub.findings.failed_rollouts import find_failures
from lightning_hub.findings.refused_calls import has_succeeded
from lightning_hub.rollout import Rollout
from lightning_hub.trajectories.breaks import Opening, Reason, openings
from lightning_hub.trajectories.judging import is_judging
from lightning_hub.trajectories.reasons import count_reasons
from lightning_hub.trajectories.rewards import total_reward
from lightning_hub.trajectories.trajectory import Trajectory, merge
from lightning_hub.trajectories.transition import Transition, UnusableCall, transitions
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.results.diagnosis import Diagnosis, RoleCalls, RoleRewards, Sequences, UncapturedCalls
from lightning_sdk.settings import Credit, Settings
from lightning_sdk.stream import notices
from lightning_sdk.trace.call import Call, Span, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisInput:
    """What there is to diagnose."""

    rollouts: Sequence[Rollout]
    name: str = "the check"
    """The round's name in messages, such as 'step 1'."""
    roles: Sequence[str] = ()
    """The setting `roles`."""
    declared: Mapping[str, bool] = field(default_factory=dict)
    """Role -> trainable, as the agent's decorators say."""
    strays: Sequence[Call | Span] = ()
    """Calls and spans that were made while these ran and belong to no rollout."""
    late: int = 0
    """Calls that arrived after the end of their rollout."""
    integrations: Mapping[str, str] = field(default_factory=dict)
    """Integration -> its state when the agent's process started; 'off...' if it is off."""
    max_failed: float = 0.5
    """The setting `failure.max_failed`."""
    settings: Settings = field(default_factory=Settings)
    tasks: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Task id -> task; without tasks, leaks into a prompt are not found."""
    at_provider: bool = False
    """The calls of roles to train went to the agent's own provider, so that nothing is known of their tokens."""


@dataclass(slots=True)
class _RoleRows:
    """What one role to train did in all rollouts that succeeded."""

    parts: list[tuple[Rollout, list[Trajectory]]] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)


def diagnose(seen: DiagnosisInput) -> Diagnosis:
    """The diagnosis of a round."""
    ok = [each for each in seen.rollouts if each.status == Status.OK]
    roles, problems = _roles(ok, seen.at_provider)
    calls = _by_role(call for each in seen.rollouts for call in each.calls)
    rewards = [_rewards(role, of_role, ok, seen.settings.credit_of(role)) for role, of_role in roles.items()]
    sequences = [] if seen.at_provider else [_sequences(role, of_role) for role, of_role in roles.items()]
    spans = [span for each in seen.rollouts for span in each.spans]
    spans += [stray for stray in seen.strays if isinstance(stray, Span)]
    elsewhere = _elsewhere(spans)
    outside = sum(isinstance(stray, Call) for stray in seen.strays)
    failed = find_failures(seen.rollouts, seen.name, seen.max_failed)
    found = [
        failed,
        *_about_calls(seen, elsewhere, outside, _integrations_off(seen, spans)),
        *_about_ids(seen, problems, failed is not None and failed.is_fatal),
        *_about_rewards(ok, rewards, seen.settings),
        _about_signal(seen),
        *_about_repeats(spans),
        *_about_sequences(roles.values(), seen.settings),
        *map(mixing.finding, mixing.find_mixed(seen.rollouts, seen.tasks)),
        *_about_shortcuts(seen, ok),
        findings.late_calls(seen.late) if seen.late else None,
    ]
    return Diagnosis(
        rollouts=len(seen.rollouts),
        statuses={str(status): count for status, count in Counter(each.status for each in seen.rollouts).items()},
        calls=calls,
        rewards=rewards,
        sequences=sequences,
        elsewhere=elsewhere,
        outside=outside,
        late=seen.late,
        findings=sorted((each for each in found if each), key=lambda each: not each.is_fatal),
        at_provider=seen.at_provider,
        reasons=count_reasons(ok),
    )


# --- facts


def _by_role(calls: Iterable[Call]) -> list[RoleCalls]:
    lines: dict[tuple[str, str], RoleCalls] = {}
    for call in calls:
        key = call.meta.role, call.meta.framework
        line = lines.setdefault(key, RoleCalls(role=call.meta.role, framework=call.meta.framework))
        line.calls += 1
        line.trainable += call.meta.trainable
        line.complete += call.meta.trainable and has_succeeded(call) and not call.problem
        line.failed += not has_succeeded(call)
    return list(lines.values())


def _roles(ok: Sequence[Rollout], at_provider: bool) -> tuple[dict[str, _RoleRows], list[str]]:
    """Role -> its rows, and why calls that succeeded cannot be used."""
    roles: dict[str, _RoleRows] = {}
    problems: list[str] = []
    for rollout in ok:
        made: dict[str, list[Transition]] = {}
        for call in rollout.calls:
            if call.meta.trainable:
                of_role = made.setdefault(call.meta.role, [])
                try:
                    # A greedy round is a measurement: nothing is learned from it, and its temperature is not a fault.
                    of_role += transitions(call) if rollout.mode == "train" and not at_provider else []
                except UnusableCall as error:
                    if has_succeeded(call):
                        problems.append(str(error))
        for role, of_role in made.items():
            rows = merge(of_role, rollout.id)
            entry = roles.setdefault(role, _RoleRows())
            entry.parts.append((rollout, rows))
            entry.openings += openings(rows, rollout.calls)
    return roles, problems


def _rewards(role: str, of_role: _RoleRows, ok: Sequence[Rollout], credit: Credit) -> RoleRewards:
    spoke = {rollout.id for rollout, _ in of_role.parts}
    groups: dict[str, list[tuple[float, bool]]] = {}
    for rollout in ok:
        value = total_reward(rollout, role, credit)
        if value is not None:
            groups.setdefault(rollout.group, []).append((value, rollout.id in spoke))
    values = [value for group in groups.values() for value, spoken in group if spoken]
    compared = [group for group in groups.values() if len(group) > 1 and any(spoken for _, spoken in group)]
    return RoleRewards(
        role=role,
        rollouts=len(values),
        mean=float(np.mean(values)) if values else 0.0,
        low=min(values, default=0.0),
        high=max(values, default=0.0),
        groups=len(compared),
        groups_with_signal=sum(_has_signal(group) for group in compared),
    )


def _has_signal(group: Sequence[tuple[float, bool]]) -> bool:
    """Like `advantages.has_signal`, from rewards and whether the role spoke, where rewards come at the end only."""
    advantages = dr_grpo([value for value, _ in group])
    return any(advantage for advantage, (_, spoken) in zip(advantages, group, strict=True) if spoken)


def _sequences(role: str, of_role: _RoleRows) -> Sequences:
    rows = [row for _, rows in of_role.parts for row in rows]
    return Sequences(
        role=role,
        rollouts=len(of_role.parts),
        turns=sum(len(row.calls) for row in rows),
        rows=len(rows),
        openings=dict(Counter(str(each.reason) for each in of_role.openings)),
    )


def _elsewhere(spans: Iterable[Span]) -> list[UncapturedCalls]:
    found: dict[tuple[str, str], list[str]] = {}
    for span in spans:
        if span.name == notices.UNCAUGHT:
            told = span.attributes
            place = f"{told.get(notices.ADDRESS, '')}{told.get(notices.PATH, '')}"
            found.setdefault((str(told.get(notices.CLIENT, "")), place), []).append(span.role or "no role")
    return [
        UncapturedCalls(client, place, tuple(sorted(set(roles))), len(roles))
        for (client, place), roles in found.items()
    ]


def _integrations_off(seen: DiagnosisInput, spans: Iterable[Span]) -> dict[str, str]:
    """Integrations that are off, and why."""
    off = {name: state.removeprefix("off: ") for name, state in seen.integrations.items() if state.startswith("off")}
    return off | {
        str(span.attributes.get(notices.INTEGRATION)): str(span.attributes.get(notices.REASON))
        for span in spans
        if span.name == notices.OFF
    }


# --- findings


def _about_calls(
    seen: DiagnosisInput, elsewhere: Sequence[UncapturedCalls], outside: int, off: Mapping[str, str]
) -> Iterable[Finding | None]:
    """Whether there is a call to train, and what became of the others."""
    calls = [call for each in seen.rollouts for call in each.calls]
    trainable = [call for call in calls if call.meta.trainable]
    # Without a rollout that succeeded, it is not known which calls it would have made.
    ran = any(each.status == Status.OK for each in seen.rollouts)
    if not calls and ran:
        yield findings.no_calls(len(seen.rollouts), sum(each.count for each in elsewhere), outside)
    elif calls and not trainable:
        yield findings.none_trainable(calls, len(seen.rollouts), seen.roles)
    elif calls and (missing := _missing_roles(seen, trainable)):
        yield findings.roles_missing(missing, calls)
    wanted = set(seen.roles) or {role for role, trained in seen.declared.items() if trained}
    stayed = [
        call
        for each in seen.rollouts
        for call in each.calls
        if call.meta.role in wanted and not call.meta.trainable and not is_judging(call, each)
    ]
    if stayed:
        yield findings.calls_not_redirected(stayed)
    if elsewhere:
        yield findings.calls_elsewhere(elsewhere, not trainable, list(off))
    if outside:
        lost = [stray for stray in seen.strays if isinstance(stray, Call) and _is_lost(stray, wanted)]
        yield findings.calls_outside(outside, len(lost), not calls)
    yield from (findings.integration_off(name, why) for name, why in off.items())


def _is_lost(stray: Call, wanted: set[str]) -> bool:
    """Whether a call of no rollout should have belonged to one."""
    return stray.meta.trainable or stray.meta.role in wanted


def _missing_roles(seen: DiagnosisInput, trainable: Sequence[Call]) -> list[str]:
    """Roles that the settings name but that made no trainable call."""
    spoke = {call.meta.role for call in trainable}
    return [role for role in dict.fromkeys([*seen.roles, *seen.settings.role]) if role not in spoke]


def _about_ids(seen: DiagnosisInput, problems: Sequence[str], failed: bool) -> Iterable[Finding]:
    """Calls that cannot be trained on; `failed`: another finding about failed rollouts already explains failed "
    "calls."""
    trainable = [call for each in seen.rollouts for call in each.calls if call.meta.trainable]
    # Found when the reply was read, so known for failed and greedy rollouts too.
    told = [call.problem for call in trainable if call.problem and has_succeeded(call)]
    if told or problems:
        yield findings.unusable_calls(told or problems, len(trainable))
    by_role: dict[str, list[Call]] = {}
    for call in trainable:
        by_role.setdefault(call.meta.role, []).append(call)
    working = {role for role, calls in by_role.items() if any(map(has_succeeded, calls))}
    yield from (
        findings.calls_failed(role, calls, alone=not working, at_provider=seen.at_provider)
        for role, calls in by_role.items()
        if role not in working and not failed
    )


def _about_rewards(ok: Sequence[Rollout], rewards: Sequence[RoleRewards], settings: Settings) -> Iterable[Finding]:
    """Whether every role to train gets rewards, and whether the rewards and weights name what exists."""
    without = [each.role for each in rewards if not each.rollouts]
    if without:
        yield findings.no_reward(without, len(ok), len(without) == len(rewards))
    spoke = sorted({call.meta.role for each in ok for call in each.calls})
    nobody = sorted({given.role for each in ok for given in each.rewards if given.role and given.role not in spoke})
    if nobody and spoke:
        yield findings.reward_of_nobody(nobody, spoke)
    names = {given.name for each in ok for given in each.rewards}
    weighed = {name for credit in settings.credits() for name in credit.rewards}
    if names and weighed - names:
        yield findings.weight_of_nothing(sorted(weighed - names), sorted(names))


def _about_signal(seen: DiagnosisInput) -> Finding | None:
    """Whether what was earned says that one rollout was better than another."""
    trained = [each for each in seen.rollouts if each.mode == "train"]
    if seen.at_provider:
        # Another model at another temperature may do differently.
        flat = flatness_of_rewards(trained, seen.settings, seen.tasks)
        return flat.finding(Severity.WARNING) if flat is not None else None
    flat = flatness(trained, seen.settings, seen.tasks)
    return flat.finding() if flat is not None else None


def _about_repeats(spans: Iterable[Span]) -> Iterable[Finding]:
    """Rewards that gave different numbers for the same answer; each runner reports a running count."""
    told = [span.attributes for span in spans if span.name == notices.UNREPEATED]
    last = {each[notices.REWARD]: each for each in sorted(told, key=lambda each: int(each[notices.AGAIN]))}
    names = notices.AGAIN, notices.DIFFERENT, notices.FIRST, notices.SECOND
    yield from (
        findings.reward_not_repeatable(str(reward), *(each[name] for name in names)) for reward, each in last.items()
    )


def _about_sequences(roles: Iterable[_RoleRows], settings: Settings) -> Iterable[Finding]:
    reasons: Counter[Reason] = Counter()
    joined = 0
    for of_role in roles:
        reasons.update(each.reason for each in of_role.openings if each.reason.is_fault)
        joined += sum(len(row.calls) - 1 for _, rows in of_role.parts for row in rows)
    if reasons and settings.length.rows == "lineage":  # otherwise one row per call is intended
        yield findings.broken_sequences(reasons, joined, settings)


def _about_shortcuts(seen: DiagnosisInput, ok: Sequence[Rollout]) -> Iterable[Finding]:
    """Ways to earn the reward other than the intended one."""
    trained = [each for each in ok if each.mode == "train"]
    yield from map(leak.finding, leak.find_leaks(trained, seen.tasks, seen.settings))
    yield from map(shortcut.finding, shortcut.find_length_shortcuts(trained, seen.settings))
