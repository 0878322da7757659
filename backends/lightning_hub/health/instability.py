"""Instability: runs that learned and lost it, or whose numbers show that they will: collapse, mismatch, staleness."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_hub.findings.findings import Finding, Severity
from lightning_hub.health.remedy import choices, other_rate, sentence, to_set
from lightning_hub.health.run_record import RunRecord, describe_role
from lightning_hub.health.scale import scale
from lightning_hub.health.silence import silenced_roles
from lightning_hub.health.stagnation import is_rising, rewards_of, trend_of, weights_of
from lightning_hub.statistics.trend import FEWEST, Fall, clear_from, fall, trend

#: A fall of the reward that is said by itself: over its standard error, and as a part of what had been reached.
FELL_CLEAR, FELL_PART = 5.0, 0.5
#: With a second sign, and nearly all of what had been reached gone: a trend that falls, or an entropy that went to so
#: many times what it was, or to one over that.
BROKE_CLEAR, BROKE_TIMES, BROKE_PART = 2.5, 2.5, 0.9
#: Part of the steps whose gradient was not finite.
SKIPPED = 0.1
#: Entropy that is left of what there was, at which a policy has stopped trying, and the part of the way from the lowest
#: to the highest reward of a rollout from which on that is no fault.
COLLAPSED, HIGH = 0.1, 0.7
#: Mean difference of log-prob between sampler and trainer in nats a token, and part of the importance weights cut.
MISMATCH, CUT = 0.05, 0.1
#: Mean age of the tokens that are trained on, in versions.
STALE = 4.0
#: Metrics that count importance weights beyond their bounds, the newest name first.
_CUTS = ("importance_outside", "importance_fraction", "truncated_fraction")


@dataclass(frozen=True, slots=True)
class BrokenRole:
    """A role whose reward fell."""

    role: str
    fall: Fall
    first: int
    """Step at which it was at its best."""
    last: int
    entropy: tuple[float, float] | None
    """Before and at the end, where it is known."""
    clear: bool
    """The fall is clear by itself."""
    lost: float
    """The part that is gone of what had been reached, from the lowest reward that was seen."""

    @property
    def has_entropy_jump(self) -> bool:
        """The entropy is far from what it was."""
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
        # On the scale of the rewards themselves, wherever their zero is.
        lost = (fell.peak - fell.end) / max(fell.peak - min(seen.low, fell.end), 1e-12)
        entropy = _entropies(record, role, fell, len(series))
        each = BrokenRole(role, fell, series[fell.at][0], series[-1][0], entropy,
                      fell.clear > FELL_CLEAR and lost > FELL_PART, lost)  # fmt: skip
        second = each.has_entropy_jump or level.falls
        if each.clear or (second and fell.clear > BROKE_CLEAR and lost > BROKE_PART):
            found.append(each)
    return found


def errors(record: RunRecord, role: str) -> list[float]:
    """Standard error of each step's mean reward: tasks differ, so as many values count as there are groups in which the
    role spoke."""
    series = rewards_of(record, role)
    spread, spoken = dict(record.series(f"reward_std/{role}")), record.rollouts_by_step(role)
    groups, means = dict(record.series(f"groups/{role}") or record.series("groups")), _group_means(record, role, spoken)
    weights = weights_of(record, role)
    pooled = sum(w * spread.get(step, 0.0) ** 2 for w, (step, _) in zip(weights, series, strict=True)) / sum(weights)
    typical = float(np.mean([float(np.var(each, ddof=1)) for each in means.values() if len(each) > 1] or [pooled]))
    found = []
    for step, _ in series:
        own = means.get(step, [])
        # One step's groups are few: what all steps show is mixed in, as is what rollouts of a group differ by.
        variance = (float(np.var(own, ddof=1)) if len(own) > 1 else spread.get(step, 0.0) ** 2) / 2 + typical / 2
        count = len(own) or groups.get(step) or min(record.settings.rollouts.tasks_per_step, spoken.get(step, np.inf))
        found.append(math.sqrt(variance / max(1.0, count)))
    return found


def _group_means(record: RunRecord, role: str, spoken: Mapping[int, float]) -> dict[int, list[float]]:
    """Step -> the mean reward of each group, of steps in all of whose rollouts the role spoke."""
    found: dict[int, list[list[float]]] = {}
    for group in record.groups(role):
        found.setdefault(group[0].step, []).append([each.rewards[role] for each in group])
    return {
        step: [float(np.mean(group)) for group in groups]
        for step, groups in found.items()
        if spoken.get(step, math.inf) >= sum(map(len, groups))
    }


def _entropies(record: RunRecord, role: str, fell: Fall, steps: int) -> tuple[float, float] | None:
    values = record.values(f"entropy/{role}") or record.values("entropy")
    if len(values) < steps:
        return None
    before, after = values[: fell.at + fell.width], values[-fell.over :]
    first = float(np.mean(before))
    return (first, float(np.mean(after))) if first > 0 else None


def check_divergence(record: RunRecord, fell: Sequence[BrokenRole]) -> Iterator[Finding]:
    """Rewards that fell after they had risen, with what else went wrong."""
    for each in fell:
        signs = "; ".join(_signs(record, each))
        smaller, held = (
            other_rate(record, 0.1),
            to_set(record.settings, "divergence.coefficient", _stronger_coefficient(record)),
        )
        yield Finding(
            "diverging",
            Severity.FATAL if each.has_entropy_jump or each.lost > BROKE_PART else Severity.WARNING,
            f"the reward of {describe_role(each.role)} fell from {each.fall.peak:.3g} at step {each.first} to "
            f"{each.fall.end:.3g} in the last {each.fall.over} steps{': ' + signs if signs else ''}.",
            "Most often the steps were too large: the model is where it can do nothing, and nothing leads back.",
            sentence(choices(
                f"go on from a checkpoint before step {each.last}",
                f"begin again with a smaller rate: {smaller}" if smaller else "",
                f"hold the model to where it began: {held}" if held else "",
            )),
        )  # fmt: skip


def _stronger_coefficient(record: RunRecord) -> float:
    """A stronger pull to the reference than there is."""
    return max(0.01, round(5 * record.settings.divergence.coefficient, 4))


def _signs(record: RunRecord, each: BrokenRole) -> Iterator[str]:
    if each.entropy is not None and each.has_entropy_jump:
        yield f"the entropy went from {each.entropy[0]:.2g} to {each.entropy[1]:.2g} nats a token"
    norms = record.values("grad_norm")
    if norms and max(norms) > max(1.0, 10 * norms[0]):
        yield f"the gradient's norm reached {max(norms):.2g}"
    rate = max(record.values("learning_rate"), default=0.0)
    if rate:
        yield f"the learning rate was up to {rate:.1e}"


def check_step(step: int, metrics: Mapping[str, float]) -> Finding | None:
    """A step whose gradient was not finite, told when it happens; None of any other."""
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics.get(name, 0.0))]
    if not broken and not metrics.get("skipped"):
        return None
    return Finding(
        "numbers not finite",
        Severity.WARNING,
        f"the gradient of step {step} was not finite{f' ({broken[0]} is {metrics[broken[0]]})' if broken else ''}, and "
        "the step changed nothing.",
        "Either the weights have left what the numbers can hold, or rewards are huge.",
        "If it happens again, see that rewards are of the size of 1, and lower optimizer.learning_rate.",
    )


def check_finite(record: RunRecord) -> Iterator[Finding]:
    """Numbers that are none."""
    lost = [step for step in record.steps if any(name in step and step[name] is None for name in ("loss", "grad_norm"))]
    skipped = [int(step["step"] or 0) for step in record.steps if step.get("skipped") or step in lost]
    if len(skipped) > SKIPPED * len(record.steps):
        lower = other_rate(record, 0.1)
        yield Finding(
            "numbers not finite",
            Severity.FATAL if len(skipped) > 0.5 * len(record.steps) else Severity.WARNING,
            f"in {len(skipped)} of {len(record.steps)} steps, first in step {skipped[0]}, the gradient was not finite.",
            "Such steps change nothing. Either the weights have left what the numbers can hold, or rewards are huge.",
            sentence(choices("see that rewards are of the size of 1", f"lower the rate: {lower}" if lower else "")),
        )


def check_entropy(record: RunRecord) -> Iterator[Finding]:
    """A policy that no longer tries anything, before it is good."""
    for role in record.roles:
        entropies = record.values(f"entropy/{role}") or record.values("entropy")
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
                "entropy collapsed",
                Severity.WARNING,
                f"the entropy of {describe_role(role)} fell from {first:.2g} to {last:.2g} nats a token while its "
                f"reward is only at {float(np.mean(rewards[-3:])):.3g} (rollouts earned between {min(seen):g} and "
                f"{max(seen):g}).",
                "The model gives nearly the same answer every time, so it finds nothing better.",
                f"Begin again with an entropy bonus: {bonus}, a wider upper clip: {wider}"
                + (f", or a smaller learning rate: {smaller}." if smaller else "."),
            )


def check_mismatch(record: RunRecord) -> Iterator[Finding]:
    """A sampler whose log-probs are not the trainer's."""
    gaps = [abs(value) for value in record.values("kl_sampler")]
    cuts = next((found for name in _CUTS if (found := record.values(name))), [])
    gap, cut = (float(np.mean(values)) if values else 0.0 for values in (gaps, cuts))
    if len(gaps) < 3 or (gap < MISMATCH and cut < CUT):
        return
    age = float(np.mean(record.values("staleness_mean") or [0.0]))
    many = f", and {cut:.0%} of the importance weights were cut" if cut >= CUT else ""
    fresher = to_set(record.settings, "rollouts.staleness", record.settings.rollouts.staleness // 2) if age >= 1 else ""
    yield Finding(
        "sampler and trainer disagree",
        Severity.WARNING,
        f"the log-probability of a sampled token differs by {gap:.2g} nats on average between the engine that sampled "
        f"it and the trainer{many}.",
        f"The rollouts are {age:.1f} versions old on average." if age >= 1 else
        "They are of the same version: the engine computes otherwise than the trainer (another precision, kernel, "
        "chat template or temperature), or it does not have the newest weights.",
        f"Lower the staleness: {fresher}." if fresher
        else "Let the engine compute in the trainer's precision, and keep importance.kind at 'truncate' or 'mask'.",
    )  # fmt: skip


def check_staleness(record: RunRecord) -> Iterator[Finding]:
    """Rollouts of models that are long gone, in a run that does not learn."""
    ages = record.values("staleness_mean")
    if len(ages) < FEWEST or (age := float(np.mean(ages))) < STALE or is_rising(record):
        return
    most = max(record.values("staleness_max"), default=age)
    fresher = to_set(record.settings, "rollouts.staleness", record.settings.rollouts.staleness // 4)
    smaller = other_rate(record, 0.3)
    yield Finding(
        "staleness high",
        Severity.WARNING,
        f"tokens are trained on {age:.1f} versions after they were sampled on average, and {most:.0f} at most "
        f"(rollouts.staleness is {record.settings.rollouts.staleness}).",
        "The older the policy that sampled, the less its rollouts tell of the one that is trained.",
        sentence(choices(f"let rollouts be newer: {fresher}" if fresher else "",
                         f"take smaller steps: {smaller}" if smaller else "take fewer of them from each batch")),
    )  # fmt: skip
