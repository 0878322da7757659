"""The report of a run: what was trained, whether it is better and what went wrong, as the data of `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.evaluation.judgement import change_of_roles, judge
from lightning_hub.storage.store import Totals
from lightning_sdk.trace.call import Status

Step = Mapping[str, float | None]
"""The metrics of one step."""

#: Metrics of a role in its last step, as the report has them.
_OF_ROLE = (
    "reward_mean", "reward_std", "groups", "groups_without_signal", "entropy", "kl_sampler", "clip_fraction",
    "kl_reference", "rows_per_rollout", "tokens_trained", "tokens_masked",
)  # fmt: skip


def compose(
    config: Mapping[str, Any],
    metrics: Sequence[Step],
    held_out: Sequence[HeldOut],
    totals: Totals,
    *,
    status: str,
    error: str = "",
    checkpoint: str = "",
    findings: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The content of `report.json`. `status` is 'finished', 'stopped' or 'failed'; `checkpoint` relative to the run;
    `findings`: what is wrong with it, as `check` tells it."""
    settings = config.get("settings", {})
    measured = {each.name: each for each in held_out}
    before, after = measured.get("before"), measured.get("after")
    judged = judge(before, after)
    of_roles = change_of_roles(before, after)
    return {
        "name": config.get("name", ""),
        "status": status,
        "error": error,
        "model": settings.get("model", ""),
        "backend": settings.get("backend", ""),
        "held_out": {each.name: each.as_dict() for each in held_out},
        "change": judged.change.as_dict() if judged.change else None,
        "change_by_role": {role: each.as_dict() for role, each in of_roles.items()},
        "verdict": judged.verdict,
        "verdict_reason": judged.reason,
        "findings": list(findings),
        "train_seconds": round(totals.train_seconds, 3),
        "steps": int(metrics[-1]["step"] or 0) if metrics else 0,
        "rollouts": sum(totals.rollouts.values()),
        "rollouts_by_status": dict(totals.rollouts),
        "failures": _failures(settings, metrics, totals),
        "calls": totals.calls,
        "tokens": totals.tokens,
        "tokens_masked": int(_total(metrics, "tokens_masked")),
        "tokens_masked_length": int(_total(metrics, "tokens_masked_length")),
        "staleness": _staleness(settings, metrics),
        "roles": _roles(metrics[-1]) if metrics else {},
        "checkpoint": checkpoint,
        "settings": settings,
        "resumed": config.get("resumed", []),
        "facts": config.get("facts", {}),
        "versions": config.get("versions", {}),
    }


def _failures(settings: Mapping[str, Any], metrics: Sequence[Step], totals: Totals) -> dict[str, Any]:
    """What was done to have whole steps, and what with each status that was not ok."""
    policy = settings.get("failure") or {}
    failed = [status for status in Status if status != Status.OK and totals.rollouts.get(status)]
    return {
        **{
            name: int(_total(metrics, name))
            for name in ("retries", "refilled", "deadline_timeouts", "resampled_groups")
        },
        "done": {str(status): done for status in failed if (done := _describe_policy(str(status), policy))},
    }


def _describe_policy(status: str, policy: Mapping[str, Any]) -> str:
    """What `failure.*` does with rollouts that ended so at last; '' where the settings are not known."""
    kind = policy.get(status)
    if kind is None:
        return ""
    if kind == "train":
        return f"trained on, with a reward of {policy['reward']:g} in addition to what they had earned"
    refills = policy.get("refills", 0)
    replaced = f"; each replaced by up to {refills} other rollout{'s' * (refills > 1)} of its task" if refills else ""
    retries = policy.get("retries", 0)
    tried = f"tried again up to {retries} time{'s' * (retries > 1)}, then " if kind == "retry" and retries else ""
    return f"{tried}left out{replaced}"


def _staleness(settings: Mapping[str, Any], metrics: Sequence[Step]) -> dict[str, float] | None:
    """In versions; None where each step waited for the one before."""
    bound = (settings.get("rollouts") or {}).get("staleness", 0)
    if not bound:
        return None
    means, highest = _values(metrics, "staleness_mean"), _values(metrics, "staleness_max")
    return {
        "bound": bound,
        "mean": sum(means) / len(means) if means else 0.0,
        "max": max(highest, default=0.0),
    }


def _roles(last: Step) -> dict[str, dict[str, float | None]]:
    """Role -> what the step showed of it, where it did."""
    names = (name.partition("/") for name in last)
    roles = dict.fromkeys(role for name, _, role in names if role and name in {"reward_mean", "rows"})
    return {role: {name: last[f"{name}/{role}"] for name in _OF_ROLE if f"{name}/{role}" in last} for role in roles}


def _values(metrics: Sequence[Step], name: str) -> list[float]:
    return [value for step in metrics if (value := step.get(name)) is not None]


def _total(metrics: Sequence[Step], name: str) -> float:
    return sum(_values(metrics, name))
