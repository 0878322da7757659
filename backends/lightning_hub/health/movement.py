"""Movement: whether a policy that has something to learn moves at all, and what prevents it: the rate or the reward."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_hub.health.drift import Drift, drift
from lightning_hub.health.remedy import other_rate, sentence, with_setting
from lightning_hub.health.run_record import RunRecord, describe_role
from lightning_hub.health.scale import scale
from lightning_hub.health.stagnation import is_rising, trend_of
from lightning_hub.statistics.trend import FEWEST, clear_from, trend
from lightning_sdk.failures.finding import Finding, Severity

#: Least share of held-out answers that stayed the same, and greatest mean difference of their log-probs in nats, for a
#: policy that has not moved in this many steps; the difference is proportionally smaller for fewer steps.
STILL_SAME, STILL_MOVED, STILL_IN = 0.8, 0.003, 20
#: Sum of the learning rates of all steps below which no policy moves: it bounds how far AdamW moves a weight.
STILL_RATE = 1e-6
_STILL_STEPS = 10
#: How far a policy may safely move in a run, in nats per token.
_TARGET = 0.05
#: Standard deviation of the rewards below which their size keeps a policy from moving, and the norm of a gradient that
#: is smaller than what AdamW adds to its size (1e-8), so that it hardly moves a weight.
SMALL, LOST_NORM = 1e-3, 1e-8
#: Estimators whose advantages are as large as the differences of the rewards; the others divide by their deviation.
_AS_LARGE = frozenset({"rloo", "dr_grpo", "running_mean", "reinforce"})


def check_movement(record: RunRecord) -> Iterator[Finding]:
    """A policy that has a signal but does not move: the rewards are too small, or the learning rate is too low."""
    signals = _count_signals(record)
    rates, norms = record.values("learning_rate"), record.values("grad_norm")
    if signals < FEWEST or not rates or not any(norms):
        return
    small = _small_spreads(record)
    if small and max(norms) < LOST_NORM:
        yield _too_small(record, small, "")
        return
    if is_rising(record):
        return
    moved = drift(record.before, record.after)
    evidence = _evidence_of_drift(record, moved) or _evidence_of_rates(record, rates, moved)
    if evidence and small:
        yield _too_small(record, small, evidence)
    elif evidence:
        yield _too_low(record, signals, moved, evidence)


def _count_signals(record: RunRecord) -> int:
    """The number of steps with something to learn."""
    return len(record.steps) - sum(
        bool(groups) and flat >= groups
        for groups, flat in zip(record.values("groups"), record.values("groups_without_signal"), strict=False)
    )


def _too_low(record: RunRecord, signals: int, moved: Drift | None, evidence: str) -> Finding:
    rates = record.values("learning_rate")
    times = _TARGET / max(moved.moved, 1e-7) if moved is not None else 1e-3 / sum(rates)
    given = record.settings.optimizer.learning_rate is not None
    leave = "leave optimizer.learning_rate unset: one is chosen from the model's size" if given else ""
    raised = with_setting("raise it", other_rate(record, max(3.0, times)))
    return Finding(
        kind="learning rate too low",
        severity=Severity.FATAL,
        what=f"{evidence} The learning rate was {max(rates):.1e} at most, in {len(record.steps)} steps, of which "
        f"{signals} had a signal; the gradient's norm was {_middle(record.values('grad_norm')):.2g}.",
        cause="There is something to learn, but the weights hardly change.",
        remedy=sentence("; or ".join(way for way in (leave, raised) if way))
        or "Look at what holds the weights back: optimizer.max_norm, divergence.coefficient, length.truncated.",
    )


def _too_small(record: RunRecord, small: dict[str, float], evidence: str) -> Finding:
    role, spread = min(small.items(), key=lambda each: each[1])
    norm = max(record.values("grad_norm"))
    return Finding(
        kind="reward too small",
        severity=Severity.FATAL,
        what=f"{evidence + ' ' if evidence else ''}The rewards of {describe_role(role)} differ by {spread:.1e} (their "
        f"standard deviation), and the gradient's norm was {norm:.1e} at most.",
        cause="Advantages are as large as the differences of the rewards, and AdamW moves a weight little for a "
        "gradient that is not much larger than 1e-8.",
        remedy="Multiply the reward, so that a good and a bad answer differ by about 1; the learning rate is not at "
        "fault.",
    )


def _small_spreads(record: RunRecord) -> dict[str, float]:
    """Role -> the deviation of its rewards, if it is tiny for all roles with a reward; else empty."""
    found = {role: of_role.spread for role in record.roles if (of_role := scale(record, role)) is not None}
    taken = {role: record.credit_of(role).advantage for role in found}
    small = {role: spread for role, spread in found.items() if 0 < spread < SMALL and taken[role] in _AS_LARGE}
    return small if len(small) == len(found) else {}


def _evidence_of_drift(record: RunRecord, moved: Drift | None) -> str:
    kl = record.values("kl_reference")
    little = STILL_MOVED * min(1.0, len(record.steps) / STILL_IN)
    if moved is not None and moved.same >= STILL_SAME * moved.prompts and moved.moved < little:
        return (
            f"The policy hardly moved: {moved.same} of {moved.prompts} held-out answers are the same before and after, "
            f"token for token, and a token's log-probability changed by {moved.moved:.1e} nats."
        )
    if moved is None and len(kl) >= FEWEST and max(kl) < little**2:
        return f"The policy hardly moved: its KL divergence from where it began is {max(kl):.1e} nats at most."
    return ""


def _evidence_of_rates(record: RunRecord, rates: list[float], moved: Drift | None) -> str:
    """Evidence, before there is a second evaluation, that the rates are too small for any weight to move."""
    level = [trend_of(record, role) for role in record.roles]
    entropies = record.values("entropy")
    if moved is not None or len(record.steps) < _STILL_STEPS or sum(rates) >= STILL_RATE or not entropies:
        return ""
    if any(each is None or abs(each.clear) > clear_from(each.n) for each in [*level, trend(entropies)]):
        return ""
    return (
        f"The learning rates of all steps add up to {sum(rates):.1e}, and no weight can move by more than about that."
    )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
