"""A run as a whole: is it learning, which role, and what is wrong, each fact at the step where it belongs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_dashboard.views.series import metrics_by_step
from lightning_hub.health.run_record import role_name
from lightning_hub.statistics.interval import interval
from lightning_hub.statistics.reward_range import RewardRange, TrainingRange, reward_range
from lightning_sdk.results.run_files import StepMetrics

#: Of all roles together and, with '/ROLE' behind it, of each.
_CURVES = (
    "reward_mean", "loss", "entropy", "kl_sampler", "kl_sampler_max", "kl_reference", "clip_fraction", "grad_norm",
    "learning_rate", "rows", "rows_per_rollout", "trained_rows", "tokens_trained", "tokens_masked", "tokens_generated",
    "tokens_per_second", "staleness_mean", "staleness_max", "groups", "groups_without_signal", "truncated_fraction",
    "completions_truncated", "calls_unusable", "retries", "refilled", "seconds", "candidates", "selection_best",
    "rollouts_spent",
)  # fmt: skip
_PREFIXES = ("seconds_", "rollouts_")
#: Seconds that intervals may take in one answer; the next answers have the rest.
_BUDGET_SECONDS = 0.06
_MOST_INTERVALS = 400


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """One run: its state, its curves, its scores on held-out tasks, and what `check` says.

    A page asks again for what takes long, and shows what there is by then; with whole=1 nothing is left out.
    """
    run = runs.open(query.require("run"))
    if query.text("whole") != "1":
        return describe_run(run, _BUDGET_SECONDS)
    run.health.examine(run.version())
    return describe_run(run, math.inf)


def describe_run(run: RunReader, seconds: float) -> dict[str, Any]:
    """As `view`, with the intervals that can be computed in so many seconds."""
    steps, report, config, version = run.steps(), run.report, run.config, run.version()
    roles = _roles(steps)
    rewards, complete = _rewards(run, roles, seconds)
    found, examining = run.health.findings(version)
    return {
        "name": run.name,
        "status": run.status(),
        "kind": config.kind,
        "settings": config.settings or {},
        "facts": config.facts,
        "versions": config.versions,
        "from_runs": config.from_runs,
        "resumed": [{"after_step": each.after_step, "changed": each.changed} for each in config.resumed],
        "report": _report(report),
        "search": config.search is not None,
        "roles": roles,
        "rewards": rewards,
        "curves": metrics_by_step(steps, _names(steps, roles)),
        "last": dict(steps[-1]) if steps else {},
        "evaluations": [
            {**each.summary().as_dict(), "name": each.name} for each in sorted(run.evaluations(), key=lambda e: e.step)
        ],
        "findings": found.findings,
        "summary": found.summary,
        "findings_missing": found.missing,
        "messages": run.hub.messages() if run.hub else [],
        "incomplete": examining or not complete,
    }


def _report(report: Any) -> dict[str, Any] | None:
    if report is None:
        return None
    kept = (
        "status", "error", "change", "change_by_role", "verdict", "verdict_reason", "train_seconds", "rollouts",
        "rollouts_by_status", "failures", "calls", "tokens", "tokens_masked", "checkpoint",
    )  # fmt: skip
    values = report.as_dict()
    return {name: values[name] for name in kept}


def _roles(steps: Sequence[StepMetrics]) -> list[str]:
    """Roles that have metrics, by their own names: '' for calls without a role."""
    names = (name.partition("/") for step in (*steps[:1], *steps[-1:]) for name in step)
    return list(dict.fromkeys(role_name(role) for name, _, role in names if name in {"reward_mean", "rows"} and role))


def _names(steps: Sequence[StepMetrics], roles: Sequence[str]) -> list[str]:
    """The metrics that the page shows without being asked."""
    known = dict.fromkeys(name for step in (*steps[:1], *steps[-1:]) for name in step)
    return [
        name for name in known if name.partition("/")[0] in _CURVES or (name.startswith(_PREFIXES) and "/" not in name)
    ]


def _rewards(run: RunReader, roles: Sequence[str], seconds: float) -> tuple[dict[str, list[dict[str, Any]]], bool]:
    """Role -> its reward in each step with an interval over the step's tasks; '' is one number for each rollout. The
    second value: whether all intervals are there."""
    columns = run.rollouts()
    kept: dict[object, dict[str, Any]] = run.keep("intervals", columns.settings, dict)
    until, complete = time.monotonic() + seconds, True
    found: dict[str, list[dict[str, Any]]] = {}
    done = _last_step(run)
    for role in ["", *(role for role in roles if role)]:
        points = []
        for step, values in _task_means(columns, role, done):
            key = (role, step, len(values), float(np.sum(values)))
            if key not in kept and time.monotonic() < until:
                kept[key] = interval(values.tolist(), within=_range(columns.scores(role))).as_dict()
            point = kept.get(key) or {"mean": float(values.mean()), "low": None, "high": None, "n": len(values)}
            complete = complete and key in kept
            points.append({"step": step, **{name: point[name] for name in ("mean", "low", "high", "n")}})
        found[role] = points
    return found, complete


def _last_step(run: RunReader) -> int:
    """The last step that is done; what runs ahead of it is not yet whole."""
    steps = run.steps()
    return int(steps[-1]["step"] or 0) if steps else 0


def _task_means(columns: Any, role: str, done: int) -> list[tuple[int, Any]]:
    """For each step, the mean of each of its groups; of many steps every second or third."""
    scores = columns.scores(role)
    shown = (columns.statuses == "ok") & (columns.steps >= 0) & (columns.steps <= done) & np.isfinite(scores)
    steps, groups, values = columns.steps[shown], columns.group_numbers[shown], scores[shown]
    if not len(steps):
        return []
    names, codes = np.unique(groups, return_inverse=True)
    means = np.bincount(codes, values) / np.bincount(codes)
    of_group = np.zeros(len(names), np.int64)
    of_group[codes] = steps
    order = np.argsort(of_group, kind="stable")
    found, starts = np.unique(of_group[order], return_index=True)
    parts = np.split(means[order], starts[1:])
    every = -(-len(found) // _MOST_INTERVALS)
    return [(int(step), part) for step, part in list(zip(found, parts, strict=True))[::every]]


def _range(scores: Any) -> RewardRange | None:
    known = scores[np.isfinite(scores)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return reward_range([], None, TrainingRange(low, high, len(known)))
