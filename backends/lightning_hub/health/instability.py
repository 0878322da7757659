"""Instability: runs that lost what they learned, or whose numbers show that they will."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_hub.health.remedy import choices, other_rate, sentence, to_set, with_setting
from lightning_hub.health.run_record import RunRecord, describe_role
from lightning_hub.health.scale import scale
from lightning_hub.health.silence import silenced_roles
from lightning_hub.health.stagnation import is_rising, rewards_of, trend_of, weights_of
from lightning_hub.statistics.trend import FEWEST, Fall, clear_from, fall, trend
from lightning_sdk.failures.finding import Finding, Severity

#: A fall of the reward that is reported by itself: over its standard error, and as a share of what had been reached.
FELL_CLEAR, FELL_PART = 5.0, 0.5
#: The same where nearly everything that had been reached is gone and there is a second sign: a falling trend, or an
#: entropy that changed by this factor, up or down.
BROKE_CLEAR, BROKE_TIMES, BROKE_PART = 2.5, 2.5, 0.9
#: Share of the steps whose gradient was not finite.
SKIPPED = 0.1
#: Share of the entropy left at which a policy has stopped exploring, and the share of the way from the lowest to the
#: highest reward of a rollout from which on that is not a fault.
COLLAPSED, HIGH = 0.1, 0.7
#: Mean difference of log-prob between sampler and trainer in nats per token, and share of importance weights cut.
MISMATCH, CUT = 0.05, 0.1
#: Mean age of the tokens that are trained on, in versions.
STALE = 4.0
#: Metrics that count importance weights beyond their bounds, the newest name first.
_CUTS = ("importance_outside", "importance_fraction", "truncated_fraction")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRole:
    """A role whose reward fell."""

    role: str
    fall: Fall
    first: int
    """The step at which it was best."""
    last: int
    entropy: tuple[float, float] | None
    """Before the fall and at the end, if known."""
    clear: bool
    """The fall is clear without a second sign."""
    lost: float
    """The share lost of what had been reached, measured from the lowest reward that was seen."""

    @property
    def has_entropy_jump(self) -> bool:
        """Whether the entropy is far from what it was."""
        return self.entropy is not None and not 1 / BROKE_TIMES < self.entropy[1] / self.entropy[0] < BROKE_TIMES


def find_broken(record: RunRecord) -> list[BrokenRole]:
    """Roles whose reward fell from what it had been."""
    silent = silenced_roles(record)
    found = []
    for role in (each for each in record.roles if each not in silent):
        series, seen = rewards_of(record, role), scale(record, role)
        if len(series) < FEWEST or seen is None or (level := trend_of(record, role)) is None or level.rises:
            continue
        values = [value for _, value in series]
        fell = fall(values, errors(record, role), weights_of(record, role))
        if fell is None:
            continue
        # On the scale of the rewards, wherever their zero is.
        lost = (fell.peak - fell.end) / max(fell.peak - min(seen.low, fell.end), 1e-12)
        entropy = _entropies(record, role, fell, len(series))
        each = BrokenRole(
            role=role,
            fall=fell,
            first=series[fell.at][0],
            last=series[-1][0],
            entropy=entropy,
            clear=fell.clear > FELL_CLEAR and lost > FELL_PART,
            lost=lost,
        )
        second = each.has_entropy_jump or level.falls
        if each.clear or (second and fell.clear > BROKE_CLEAR and lost > BROKE_PART):
            found.append(each)
    return found


def errors(record: RunRecord, role: str) -> list[float]:
    """Standard error of each step's mean reward. Since tasks differ, the number of values is the number of groups in
    which the role spoke."""
    series = rewards_of(record, role)
    spread, spoken = dict(record.series(f"reward_std/{role}")), record.rollouts_by_step(role)
    groups, means = dict(record.series_of(role, "groups")), _group_means(record, role, spoken)
    weights = weights_of(record, role)
    pooled = sum(w * spread.get(step, 0.0) ** 2 for w, (step, _) in zip(weights, series, strict=True)) / sum(weights)
    typical = float(np.mean([float(np.var(each, ddof=1)) for each in means.values() if len(each) > 1] or [pooled]))
    found = []
    for step, _ in series:
        own = means.get(step, [])
        # A step has few groups, so what all steps show is mixed in.
        variance = (float(np.var(own, ddof=1)) if len(own) > 1 else spread.get(step, 0.0) ** 2) / 2 + typical / 2
        count = len(own) or groups.get(step) or min(record.settings.rollouts.tasks_per_step, spoken.get(step, np.inf))
        found.append(math.sqrt(variance / max(1.0, count)))
    return found


def _group_means(record: RunRecord, role: str, spoken: Mapping[int, float]) -> dict[int, list[float]]:
    """Step -> the mean reward of each group, for steps in which the role spoke in all rollouts."""
    found: dict[int, list[list[float]]] = {}
    for group in record.groups(role):
        found.setdefault(group[0].step, []).append([each.rewards[role] for each in group])
    return {
        step: [float(np.mean(group)) for group in groups]
        for step, groups in found.items()
        if spoken.get(step, math.inf) >= sum(map(len, groups))
    }


def _entropies(record: RunRecord, role: str, fell: Fall, steps: int) -> tuple[float, float] | None:
    values = record.values_of(role, "entropy")
    if len(values) < steps:
        return None
    before, after = values[: fell.at + fell.width], values[-fell.over :]
    first = float(np.mean(before))
    return (first, float(np.mean(after))) if first > 0 else None


def check_divergence(record: RunRecord, fell: Sequence[BrokenRole]) -> Iterator[Finding]:
    """Rewards that fell after they had risen, with the signs of what went wrong."""
    for each in fell:
        signs = "; ".join(_signs(record, each))
        held = to_set(record.settings, "divergence.coefficient", _stronger_coefficient(record))
        yield Finding(
            kind="diverging",
            severity=Severity.FATAL if each.has_entropy_jump or each.lost > BROKE_PART else Severity.WARNING,
            what=f"the reward of {describe_role(each.role)} fell from {each.fall.peak:.3g} at step {each.first} to "
            f"{each.fall.end:.3g} in the last {each.fall.over} steps{': ' + signs if signs else ''}.",
            cause="Most often the steps were too large: the model can do nothing any more, and does not recover.",
            remedy=sentence(
                choices(
                    f"resume from a checkpoint before step {each.last}",
                    with_setting("start over with a smaller rate", other_rate(record, 0.1)),
                    with_setting("keep the model close to where it began", held),
                )
            ),
        )


def _stronger_coefficient(record: RunRecord) -> float:
    """A stronger pull to the reference than there is."""
    return max(0.01, round(5 * record.settings.divergence.coefficient, 4))


def _signs(record: RunRecord, each: BrokenRole) -> Iterator[str]:
    if each.entropy is not None and each.has_entropy_jump:
        yield f"the entropy went from {each.entropy[0]:.2g} to {each.entropy[1]:.2g} nats per token"
    norms = record.values("grad_norm")
    if norms and max(norms) > max(1.0, 10 * norms[0]):
        yield f"the gradient's norm reached {max(norms):.2g}"
    rate = max(record.values("learning_rate"), default=0.0)
    if rate:
        yield f"the learning rate was up to {rate:.1e}"


def check_step(step: int, metrics: Mapping[str, float]) -> Finding | None:
    """The finding about a step whose gradient was not finite, reported when it happens; None for any other step."""
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics.get(name, 0.0))]
    if not broken and not metrics.get("skipped"):
        return None
    return Finding(
        kind="numbers not finite",
        severity=Severity.WARNING,
        what=f"the gradient of step {step} was not "
        f"finite{f' ({broken[0]} is {metrics[broken[0]]})' if broken else ''}, and the step changed nothing.",
        cause="Either the weights are too large for their number format, or rewards are huge.",
        remedy="If it happens again, scale rewards to about 1 and lower optimizer.learning_rate.",
    )


def check_finite(record: RunRecord) -> Iterator[Finding]:
    """Losses or gradients that are not finite numbers."""
    lost = [step for step in record.steps if any(name in step and step[name] is None for name in ("loss", "grad_norm"))]
    skipped = [int(step["step"] or 0) for step in record.steps if step.get("skipped") or step in lost]
    if len(skipped) > SKIPPED * len(record.steps):
        yield Finding(
            kind="numbers not finite",
            severity=Severity.FATAL if len(skipped) > 0.5 * len(record.steps) else Severity.WARNING,
            what=f"in {len(skipped)} of {len(record.steps)} steps, first in step {skipped[0]}, the gradient was not "
            "finite.",
            cause="Such steps change nothing. Either the weights have left what the numbers can hold, or rewards are "
            "huge.",
            remedy=sentence(
                choices("scale rewards to about 1", with_setting("lower the rate", other_rate(record, 0.1)))
            ),
        )


def check_entropy(record: RunRecord) -> Iterator[Finding]:
    """A policy that stopped exploring before it became good."""
    for role in record.roles:
        entropies = record.values_of(role, "entropy")
        rewards = [value for _, value in rewards_of(record, role)]
        seen = [each.rewards[role] for each in record.scored if role in each.rewards]
        if len(entropies) < 2 * FEWEST or len(rewards) < 2 * FEWEST or not seen or min(seen) == max(seen):
            continue
        first, last = float(np.mean(entropies[:3])), float(np.mean(entropies[-3:]))
        reached = (float(np.mean(rewards[-3:])) - min(seen)) / (max(seen) - min(seen))
        late = trend(rewards[len(rewards) // 2 :])
        if last < COLLAPSED * first and reached < HIGH and late.clear < clear_from(late.n):
            bonus = to_set(record.settings, "algorithm.entropy", max(0.01, 2 * record.settings.algorithm.entropy))
            wider = to_set(record.settings, "algorithm.clip_high", max(0.4, 2 * record.settings.algorithm.clip_high))
            smaller = other_rate(record, 0.3)
            yield Finding(
                kind="entropy collapsed",
                severity=Severity.WARNING,
                what=f"the entropy of {describe_role(role)} fell from {first:.2g} to {last:.2g} nats per token while "
                "its "
                f"reward is only at {float(np.mean(rewards[-3:])):.3g} (rollouts earned between {min(seen):g} and "
                f"{max(seen):g}).",
                cause="The model gives nearly the same answer every time, so it finds nothing better.",
                remedy=f"Start over with an entropy bonus: {bonus}, a wider upper clip: {wider}"
                + (f", or a smaller learning rate: {smaller}." if smaller else "."),
            )


def check_mismatch(record: RunRecord) -> Iterator[Finding]:
    """A sampler whose log-probs differ from the trainer's."""
    gaps = [abs(value) for value in record.values("kl_sampler")]
    cuts = next((found for name in _CUTS if (found := record.values(name))), [])
    gap, cut = (float(np.mean(values)) if values else 0.0 for values in (gaps, cuts))
    if len(gaps) < 3 or (gap < MISMATCH and cut < CUT):
        return
    age = float(np.mean(record.values("staleness_mean") or [0.0]))
    many = f", and {cut:.0%} of the importance weights were cut" if cut >= CUT else ""
    fresher = to_set(record.settings, "rollouts.staleness", record.settings.rollouts.staleness // 2) if age >= 1 else ""
    yield Finding(
        kind="sampler and trainer disagree",
        severity=Severity.WARNING,
        what=f"the log-probability of a sampled token differs by {gap:.2g} nats on average between the engine that "
        f"sampled it and the trainer{many}.",
        cause=f"The rollouts are {age:.1f} versions old on average."
        if age >= 1
        else "They are of the same version: the engine computes differently from the trainer (another "
        "precision, kernel, chat template or temperature), or it does not have the newest weights.",
        remedy=f"Lower the staleness: {fresher}."
        if fresher
        else "Make the engine compute in the trainer's precision, and keep importance.kind at 'truncate' or 'mask'.",
    )


def check_staleness(record: RunRecord) -> Iterator[Finding]:
    """Rollouts of old versions of the model, in a run that does not learn."""
    ages = record.values("staleness_mean")
    if len(ages) < FEWEST or (age := float(np.mean(ages))) < STALE or is_rising(record):
        return
    most = max(record.values("staleness_max"), default=age)
    fresher = to_set(record.settings, "rollouts.staleness", record.settings.rollouts.staleness // 4)
    yield Finding(
        kind="staleness high",
        severity=Severity.WARNING,
        what=f"tokens are trained on {age:.1f} versions after they were sampled on average, and {most:.0f} at most "
        f"(rollouts.staleness is {record.settings.rollouts.staleness}).",
        cause="The older the policy that sampled a rollout, the less it tells about the one that is trained.",
        remedy=sentence(
            choices(
                with_setting("use newer rollouts", fresher),
                with_setting("take smaller steps", other_rate(record, 0.3)) or "take fewer of them from each batch",
            )
        ),
    )
