"""Scalars: the numbers of a run under the names by which trackers and TensorBoard's events have them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_sdk.results.run_files import StepMetrics
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.results.score import HeldOutScore, Interval


def step_scalars(metrics: StepMetrics) -> dict[str, float]:
    """The metrics of a step as 'train/NAME', without those that are not finite."""
    return _finite({f"train/{name}": value for name, value in metrics.items() if name != "step"})


def held_out_scalars(score: HeldOutScore) -> dict[str, float]:
    """The score with its interval as 'held_out/mean', 'held_out/low' and 'held_out/high', and the mean of each role."""
    roles = {f"held_out/mean/{role}": each.mean for role, each in score.roles.items()}
    return _finite({**_interval("held_out", score.score), **roles})


def summarize(report: RunReport) -> dict[str, float | str]:
    """What came of a run, in one number or word each."""
    scores = {f"held_out/{name}": each.score for name, each in report.held_out.items() if not name.startswith("step-")}
    if report.change is not None:
        scores["held_out/change"] = report.change
    numbers = {key: value for name, each in scores.items() for key, value in _interval(name, each).items()}
    counts = {name: getattr(report, name) for name in ("steps", "train_seconds", "rollouts", "calls", "tokens")}
    words = {name: str(getattr(report, name)) for name in ("status", "verdict", "verdict_reason", "error")}
    return {**_finite({**numbers, **counts}), **{name: word for name, word in words.items() if word}}


def format_summary(summary: Mapping[str, float | str]) -> str:
    """A summary as a table in Markdown."""
    rows = [f"| {name} | {value if isinstance(value, str) else f'{value:g}'} |" for name, value in summary.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _interval(name: str, score: Interval) -> dict[str, float | None]:
    return {f"{name}/mean": score.mean, f"{name}/low": score.low, f"{name}/high": score.high}


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
