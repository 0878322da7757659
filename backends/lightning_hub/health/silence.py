"""Silence: roles that speak in fewer and fewer rollouts, because another role has learned not to ask them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_hub.health.run_record import RunRecord, describe_role
from lightning_hub.health.scale import scale
from lightning_hub.statistics.trend import FEWEST, trend
from lightning_sdk.failures.finding import Finding, Severity

#: Greatest share left at the end of the rollouts in which a role spoke at first, and how clear that has to be, in
#: standard errors.
LEFT, CLEAR = 0.5, 5.0
#: Share of all rollouts below which a role that still speaks learns nothing any more.
GONE = 0.05
#: Share of the way to the best reward seen from which on a role may not be needed at all.
SOLVED = 0.7
#: Fewest rollouts at the beginning.
_ROLLOUTS = 40


def silenced_roles(record: RunRecord) -> list[str]:
    """Roles that fell silent."""
    return [role for role in record.roles if _shares(record, role) is not None]


def check_silenced_roles(record: RunRecord) -> Iterator[Finding]:
    """Roles that are asked in few of the rollouts in which they were asked at first."""
    for role in record.roles:
        if (shares := _shares(record, role)) is None:
            continue
        first, last = shares
        own = any(reward.role for rollout in record.sample for reward in rollout.rewards)
        yield Finding(
            kind="role fell silent",
            severity=Severity.FATAL if last < GONE else Severity.WARNING,
            what=f"{describe_role(role)} spoke in {first:.0%} of the rollouts at first and in {last:.0%} at the end of "
            f"{len(record.steps)} steps{_describe_rewards(record)}.",
            cause="A role that is not asked learns nothing. The role that asks it has learned that asking does not pay"
            + (
                "."
                if own or len(record.roles) < 2
                else ": with one number for all roles, each is blamed for what another said."
            ),
            remedy=(
                "Check what asking it earns the role that asks; "
                if own
                else "Give each role a number for its own work: "
                f"return a dict from the reward function, {{{', '.join(f'{each!r}: ...' for each in record.roles)}}}; "
            )
            + "if it is not needed in these tasks, ignore this.",
        )


def _shares(record: RunRecord, role: str) -> tuple[float, float] | None:
    """Shares of the rollouts in which a role spoke at the beginning and at the end; None unless it fell silent."""
    spoke, ran = record.rollouts_by_step(role), dict(record.series("rollouts_ok"))
    steps = [step for step, count in ran.items() if count]
    if len(steps) < FEWEST or not spoke or record.stored:
        return None
    over = max(3, len(steps) // 5)
    (first, asked), (last, later) = (_share(part, spoke, ran) for part in (steps[:over], steps[-over:]))
    if asked < _ROLLOUTS or last > LEFT * first or _is_solved(record, role):
        return None
    # Rollouts of one task are much alike, so the number of tasks counts.
    size = record.settings.rollouts.group_size
    middle = (first + last) / 2
    error = math.sqrt(middle * (1 - middle) * (size / asked + size / later))
    shares = trend([spoke.get(step, 0.0) / ran[step] for step in steps])
    clear = (first - last) / max(error, 1e-9)
    return (first, last) if clear > CLEAR or (shares.falls and clear > CLEAR / 2) else None


def _share(steps: Sequence[int], spoke: dict[int, float], ran: dict[int, float]) -> tuple[float, float]:
    """The share of these steps' rollouts in which a role spoke, and the number of rollouts."""
    rollouts = sum(ran[step] for step in steps)
    # Failed rollouts that are trained on count as spoken too.
    return min(1.0, sum(spoke.get(step, 0.0) for step in steps) / rollouts), rollouts


def _is_solved(record: RunRecord, role: str) -> bool:
    """Whether the reward at the end is near the best that was seen."""
    rewards, seen = record.values("reward_mean"), scale(record, role)
    if not rewards or seen is None:
        return False
    last = rewards[-max(3, len(rewards) // 5) :]
    return seen.place(sum(last) / len(last)) >= SOLVED


def _describe_rewards(record: RunRecord) -> str:
    rewards = record.values("reward_mean")
    over = max(3, len(rewards) // 5)
    if len(rewards) < over:
        return ""
    first, last = sum(rewards[:over]) / over, sum(rewards[-over:]) / over
    return f", while a rollout's reward went from {first:.3g} to {last:.3g}"
