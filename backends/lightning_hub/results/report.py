"""The report of a run: what was trained, whether it is better and what went wrong, as the data of `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.evaluation.judgement import change_of_roles, judge
from lightning_hub.storage.store import Totals
from lightning_sdk.failures.finding import Finding
from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_files import RunConfig, StepMetrics
from lightning_sdk.results.run_report import FailureCounts, RunReport, TokenStaleness
from lightning_sdk.trace.call import Status

#: Metrics of a role in its last step, as the report has them.
_OF_ROLE = (
    "reward_mean", "reward_std", "groups", "groups_without_signal", "entropy", "kl_sampler", "clip_fraction",
    "kl_reference", "rows_per_rollout", "tokens_trained", "tokens_masked",
)  # fmt: skip


def compose(
    name: str,
    start: RunConfig,
    metrics: Sequence[StepMetrics],
    held_out: Sequence[HeldOut],
    totals: Totals,
    *,
    status: str,
    error: str = "",
    checkpoint: str = "",
    findings: Sequence[Finding] = (),
) -> RunReport:
    """The report of the run by this name that began like this. `status` is 'finished', 'stopped' or 'failed';
    `checkpoint` relative to the run; `findings`: what is wrong with it, as `check` tells it."""
    settings = start.settings or {}
    measured = {each.name: each for each in held_out}
    before, after = measured.get("before"), measured.get("after")
    judged = judge(before, after)
    return RunReport(
        name=name,
        status=status,
        error=error,
        model=settings.get("model", ""),
        backend=settings.get("backend", ""),
        held_out={each.name: each.summary() for each in held_out},
        change=judged.change,
        change_by_role=change_of_roles(before, after),
        verdict=judged.verdict,
        verdict_reason=judged.reason,
        findings=findings,
        train_seconds=round(totals.train_seconds, 3),
        steps=int(metrics[-1]["step"] or 0) if metrics else 0,
        rollouts=sum(totals.rollouts.values()),
        rollouts_by_status=dict(totals.rollouts),
        failures=_failures(settings.get("failure") or {}, metrics, totals),
        calls=totals.calls,
        tokens=totals.tokens,
        tokens_masked=int(_total(metrics, "tokens_masked")),
        tokens_masked_length=int(_total(metrics, "tokens_masked_length")),
        staleness=_staleness((settings.get("rollouts") or {}).get("staleness", 0), metrics),
        roles=_roles(metrics[-1]) if metrics else {},
        checkpoint=checkpoint,
        settings=settings,
        resumed=start.resumed,
        facts=start.facts,
        versions=start.versions,
        search=start.search,
        phases=start.phases,
    )


def _failures(policy: Mapping[str, Any], metrics: Sequence[StepMetrics], totals: Totals) -> FailureCounts:
    """What was done to have whole steps, and what `failure.*` does with each status that was not ok."""
    failed = [status for status in Status if status != Status.OK and totals.rollouts.get(status)]
    return FailureCounts(
        retries=int(_total(metrics, "retries")),
        refilled=int(_total(metrics, "refilled")),
        deadline_timeouts=int(_total(metrics, "deadline_timeouts")),
        resampled_groups=int(_total(metrics, "resampled_groups")),
        done={str(status): done for status in failed if (done := _describe_policy(str(status), policy))},
    )


def _describe_policy(status: str, policy: Mapping[str, Any]) -> str:
    """What `failure.*` does with rollouts that ended so at last; '' where the settings are not known."""
    kind = policy.get(status)
    if kind is None:
        return ""
    if kind == "train":
        return f"trained on, with a reward of {policy['reward']:g} in addition to what they had earned"
    refills = policy.get("refills", 0)
    replaced = f"; each replaced by up to {quantity(refills, 'other rollout')} of its task" if refills else ""
    retries = policy.get("retries", 0)
    tried = f"tried again up to {quantity(retries, 'time')}, then " if kind == "retry" and retries else ""
    return f"{tried}left out{replaced}"


def _staleness(bound: int, metrics: Sequence[StepMetrics]) -> TokenStaleness | None:
    """None where each step waited for the one before."""
    if not bound:
        return None
    means, highest = _values(metrics, "staleness_mean"), _values(metrics, "staleness_max")
    return TokenStaleness(bound, sum(means) / len(means) if means else 0.0, max(highest, default=0.0))


def _roles(last: StepMetrics) -> dict[str, dict[str, float | None]]:
    """Role -> what the step showed of it, where it did."""
    names = (name.partition("/") for name in last)
    roles = dict.fromkeys(role for name, _, role in names if role and name in {"reward_mean", "rows"})
    return {role: {name: last[f"{name}/{role}"] for name in _OF_ROLE if f"{name}/{role}" in last} for role in roles}


def _values(metrics: Sequence[StepMetrics], name: str) -> list[float]:
    return [value for step in metrics if (value := step.get(name)) is not None]


def _total(metrics: Sequence[StepMetrics], name: str) -> float:
    return sum(_values(metrics, name))
