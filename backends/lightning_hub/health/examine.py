"""Health: whether a run learned, judged by its folder, and why not.

`python -m lightning_hub.health.examine FOLDER` prints it as one JSON object; `lightning-sdk check RUN` does that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightning_hub.diagnosis import leak, mixing, shortcut
from lightning_hub.health import generalization, instability, monotony, movement, silence, stagnation, waste
from lightning_hub.health.run_record import RunRecord, describe_role, read_record
from lightning_hub.statistics.trend import FEWEST, MANY, clear_from
from lightning_sdk.errors import LightningError
from lightning_sdk.failures.finding import Finding, Severity
from lightning_sdk.results.diagnosis import Examination, RoleHealth
from lightning_sdk.results.quantity import quantity

#: The finding of a run that ended with an error.
ENDED = "run failed"
#: Findings about the first rollouts that the metrics of all steps show better.
_FIRST_ONLY = frozenset({
    "no signal", "no reward", "rollouts failed", "broken sequences", "role without calls",
    "role filter matched nothing", "answer in the prompt", "reward follows length",
})  # fmt: skip
#: Findings about the first rollouts that concern all rewards of the run.
_ABOUT_REWARDS = frozenset({"reward not repeatable"})


@dataclass(frozen=True, slots=True)
class Health:
    """What a run has achieved so far, and what is wrong with it."""

    record: RunRecord
    roles: list[RoleHealth]
    findings: list[Finding]
    """The most serious first."""

    @property
    def learnable(self) -> bool:
        """No finding is fatal."""
        return not any(each.is_fatal for each in self.findings)

    def summary(self) -> str:
        """One sentence for each role and one for the held-out tasks: whether the run learns."""
        said = [_describe_trend(each) for each in self.roles] or ["No step of this run was finished."]
        if self.record.stored:
            said = [_describe_replay(self.record)]
        judged, both = generalization.judgement(self.record), generalization.first_and_last(self.record)
        if judged is not None and both is not None:
            first, last = (generalization.score_of(each) for each in both)
            said.append(f"On held-out tasks the score went from {first:.3g} to {last:.3g}: {judged}.")
        return " ".join(said)

    def examination(self) -> Examination:
        """What is told of it."""
        return Examination(
            run=self.record.name,
            status=self.record.status,
            steps=len(self.record.steps),
            roles=self.roles,
            summary=self.summary(),
            findings=self.findings,
        )


def examine(record: RunRecord) -> Health:
    """The health of a run."""
    found = sorted(_findings(record), key=lambda each: not each.is_fatal)
    names = [] if record.stored else record.roles
    roles = [each for role in names if (each := _role_health(record, role)) is not None]
    return Health(record, roles, found)


def _findings(record: RunRecord) -> Iterator[Finding]:
    """The findings, those that explain most first."""
    early = [replace(each, passing=False) for each in record.first_findings]  # the run went on with other tasks
    if record.status == "failed":
        yield _run_failed(record)
    if not record.steps:
        yield from (each for each in early if each.what not in record.error)
        return
    lost = list(instability.check_finite(record))
    yield from lost
    if record.stored:
        yield from movement.check_movement(record)
        return
    yield from (each for each in early if each.kind in _ABOUT_REWARDS)
    blockers = [*lost, *_blockers(record)]
    yield from blockers[len(lost) :]
    hints = list(_hints(record, bool(blockers)))
    yield from hints
    yield from (*waste.check_failures(record), *waste.check_truncation(record), *waste.check_broken_rows(record))
    yield from (each for each in early if each.kind not in _FIRST_ONLY | _ABOUT_REWARDS)
    if not blockers and not hints and not stagnation.is_rising(record):
        yield from stagnation.check_flat_reward(record)


def _blockers(record: RunRecord) -> Iterator[Finding]:
    """Findings that explain why nothing can be learned."""
    yield from (*stagnation.check_roles(record), *stagnation.check_rewards(record))
    quiet = list(silence.check_silenced_roles(record))
    yield from quiet
    if broken := instability.find_broken(record):
        yield from instability.check_divergence(record, broken)
    elif not quiet:  # without the silent role, rollouts are all alike
        yield from stagnation.check_signal(record)
    yield from movement.check_movement(record)


def _hints(record: RunRecord, blocked: bool) -> Iterator[Finding]:
    """Findings that explain why less is learned than could be; `blocked`: there are more serious ones."""
    yield from () if blocked else stagnation.check_flat_groups(record)
    yield from (*instability.check_mismatch(record), *instability.check_staleness(record))
    yield from () if blocked else instability.check_entropy(record)
    yield from monotony.check_one_answer(record)
    mixed = map(mixing.finding, mixing.find_mixed(record.sample, record.tasks))
    yield from (replace(each, severity=Severity.WARNING) for each in mixed)
    yield from map(leak.finding, leak.find_leaks(record.sample, record.tasks, record.settings))
    yield from map(shortcut.finding, shortcut.find_length_shortcuts(record.sample, record.settings))
    yield from () if blocked else generalization.check_held_out_worse(record)
    yield from generalization.check_overfitting(record)


def _run_failed(record: RunRecord) -> Finding:
    return Finding(
        kind=ENDED,
        severity=Severity.FATAL,
        what=f"the run failed after {quantity(len(record.steps), 'step')}: "
        f"{record.error or 'for a reason that was not written down'}",
        cause="",
        remedy=f"Once that is fixed, go on with it: --resume {record.name}; hub.log in its folder has more.",
    )


def _role_health(record: RunRecord, role: str) -> RoleHealth | None:
    values = [value for _, value in stagnation.rewards_of(record, role)]
    if not values:
        return None
    fifth, weights = max(1, len(values) // 5), stagnation.weights_of(record, role)
    trend = stagnation.trend_of(record, role)
    first, last = (
        float(np.average(values[part], weights=weights[part])) for part in (slice(fifth), slice(-fifth, None))
    )
    rises, falls = trend is not None and trend.rises, trend is not None and trend.falls
    if not rises and not falls and len(values) >= FEWEST:
        # A reward that jumps and stays there is not a straight line.
        errors = np.square(instability.errors(record, role))
        error = float(np.sqrt(np.mean(errors[:fifth]) / fifth + np.mean(errors[-fifth:]) / fifth))
        rises, falls = (sign * (last - first) > clear_from(MANY) * error for sign in (1, -1))
    return RoleHealth(role=role, steps=len(values), first=first, last=last, rises=rises, falls=falls)


def _describe_replay(record: RunRecord) -> str:
    losses = record.values("loss")
    went = f": the loss went from {losses[0]:.3g} to {losses[-1]:.3g}" if losses else ""
    return f"{quantity(len(record.steps), 'step was', 'steps were')} trained on stored rollouts{went}."


def _describe_trend(each: RoleHealth) -> str:
    whose = f"The reward of {describe_role(each.role)}"
    if each.steps < FEWEST:
        return f"{whose} was {each.last:.3g} after {quantity(each.steps, 'step')}, too few to see a trend."
    if each.rises:
        return f"{whose} rose from {each.first:.3g} to {each.last:.3g} in {each.steps} steps."
    if each.falls:
        return f"{whose} fell from {each.first:.3g} to {each.last:.3g} in {each.steps} steps."
    return f"{whose} went from {each.first:.3g} to {each.last:.3g} in {each.steps} steps, no more than its noise."


def main() -> int:
    """Print the health of a folder's run, or {"error": [class, message]}."""
    try:
        answer = examine(read_record(Path(sys.argv[1]))).examination().as_dict()
    except LightningError as error:
        answer = {"error": [type(error).__name__, str(error)]}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
