"""The report of a run: what was trained and whether it is better, as data and as a page for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_hub.interval import Interval, difference

NOT_SHOWN = "not shown to be better"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The score on held-out tasks at one moment."""

    name: str
    """'before', 'after', or 'step-N'."""
    step: int
    score: Interval
    failed: int = 0
    """Rollouts without a score, which the interval leaves out."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Task -> score, so that two measurements can be compared task by task; may be empty."""

    def as_dict(self) -> dict[str, Any]:
        return {"step": self.step, **self.score.as_dict(), "failed": self.failed}


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run has used, over all its sessions."""

    train_seconds: float = 0.0
    """Wall time of training, without evaluation."""
    rollouts: Mapping[str, int] = field(default_factory=dict)
    """Status -> number of finished training rollouts."""
    calls: int = 0
    """Calls of trainable roles in them."""
    tokens: int = 0
    """Sampled tokens trained on."""


def compose(
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float | None]],
    held_out: Sequence[HeldOut],
    totals: Totals,
    *,
    status: str,
    error: str = "",
    checkpoint: str = "",
) -> dict[str, Any]:
    """The content of `report.json`. `status` is 'finished', 'stopped' or 'failed'; `checkpoint` relative to the run."""
    settings = config.get("settings", {})
    measured = {each.name: each for each in held_out}
    before, after = measured.get("before"), measured.get("after")
    change = _change(before, after)
    return {
        "name": config.get("name", ""),
        "status": status,
        "error": error,
        "model": settings.get("model", ""),
        "backend": settings.get("backend", ""),
        "held_out": {each.name: each.as_dict() for each in held_out},
        "change": change.as_dict() if change else None,
        "verdict": verdict(before, after),
        "train_seconds": round(totals.train_seconds, 3),
        "steps": int(metrics[-1]["step"] or 0) if metrics else 0,
        "rollouts": sum(totals.rollouts.values()),
        "rollouts_by_status": dict(totals.rollouts),
        "calls": totals.calls,
        "tokens": totals.tokens,
        "checkpoint": checkpoint,
        "settings": settings,
        "facts": config.get("facts", {}),
        "versions": config.get("versions", {}),
    }


def verdict(before: HeldOut | None, after: HeldOut | None) -> str:
    """'better', 'worse', 'not shown to be better', or 'not measured'.

    By the interval of the task-by-task difference where the scores of the same tasks are known, else by whether the
    two intervals are apart, which is the stricter test.
    """
    if before is None or after is None or not before.score.n or not after.score.n:
        return "not measured"
    change = _change(before, after)
    if change:
        up, down = change.low > 0, change.high < 0
    else:
        up, down = after.score.low > before.score.high, after.score.high < before.score.low
    return "better" if up else "worse" if down else NOT_SHOWN


def _change(before: HeldOut | None, after: HeldOut | None) -> Interval | None:
    """The paired difference over the tasks that both measured."""
    if before is None or after is None:
        return None
    both = [task for task in before.scores if task in after.scores]
    return difference([before.scores[t] for t in both], [after.scores[t] for t in both]) if both else None


def markdown(report: Mapping[str, Any], folder: str) -> str:
    """The page `report.md` of a composed report; `folder` is the run's, as the user would type it."""
    sections = [
        f"# {report['name']}\n\n{_headline(report)}",
        _held_out_table(report),
        "![Reward per step, and the score on held-out tasks](curve.png)" if report["steps"] else "",
        _what_ran(report),
        _chosen(report),
        _go_on(report, folder),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _headline(report: Mapping[str, Any]) -> str:
    if report["status"] == "failed":
        return (
            f"**This run failed** after {report['steps']} steps, so it is no result.\n\n"
            f"```text\n{report['error'] or 'unknown error'}\n```"
        )
    if not report["steps"]:
        return f"`{report['model']}` was scored on held-out tasks, without training."
    began = f"`{report['model']}` was trained for {report['steps']} steps with the `{report['backend']}` backend"
    ended = "." if report["status"] == "finished" else f"; the run was {report['status']} before its last step."
    return f"{began}{ended}\n\n{_verdict_sentence(report)}"


def _verdict_sentence(report: Mapping[str, Any]) -> str:
    before, after = report["held_out"].get("before"), report["held_out"].get("after")
    if report["verdict"] == "not measured":
        return "Whether it is better was **not measured**: a held-out score before or after training is missing."
    moved = f"from {before['mean']:.3f} to {after['mean']:.3f} on held-out tasks"
    change = report["change"]
    by = f" (by task: {_signed(change)})" if change else ""
    if report["verdict"] == "better":
        return f"**Better**: the score went {moved}{by}."
    if report["verdict"] == "worse":
        return f"**Worse**: the score went {moved}{by}."
    return (
        f"**Not shown to be better**: the score went {moved}{by}, which chance alone may explain. "
        "More steps, or more held-out tasks (`evaluation.tasks`), would tell."
    )


def _signed(change: Mapping[str, Any]) -> str:
    bounds = "no interval" if change["low"] is None else f"95% interval {change['low']:+.3f} to {change['high']:+.3f}"
    return f"{change['mean']:+.3f}, {bounds}, n={change['n']}"


def _held_out_table(report: Mapping[str, Any]) -> str:
    if not report["held_out"]:
        return ""
    lines = ["| held-out tasks | score | 95% interval | tasks | failed |", "|---|---|---|---|---|"]
    for name, score in sorted(report["held_out"].items(), key=lambda item: (item[1]["step"], item[0] != "before")):
        mean = "-" if score["mean"] is None else f"{score['mean']:.3f}"
        bounds = "-" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f} ({score['method']})"
        lines.append(f"| {name} (step {score['step']}) | {mean} | {bounds} | {score['n']} | {score['failed']} |")
    if any(score["failed"] for score in report["held_out"].values()):
        lines.append("\nA failed rollout has no score: it is left out of the mean, not counted as 0.")
    return "\n".join(lines)


def _what_ran(report: Mapping[str, Any]) -> str:
    if not report["rollouts"]:
        return ""
    lines = [
        "## What ran",
        "",
        f"{report['rollouts']:,} training rollouts, {report['calls']:,} trainable calls and {report['tokens']:,} "
        f"sampled tokens in {_minutes(report['train_seconds'])}.",
    ]
    failed = {status: n for status, n in report["rollouts_by_status"].items() if status != "ok" and n}
    if failed:
        told = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in failed.items())
        lines += ["", f"Rollouts that failed and were not trained on: {told}."]
    return "\n".join(lines)


def _chosen(report: Mapping[str, Any]) -> str:
    """The settings that the user left open, and those that the user changed."""
    facts = {name: value for name, value in report["facts"].items() if isinstance(value, str | int | float | bool)}
    if not facts:
        return ""
    lines = ["## Chosen for you", "", "| setting or fact | value |", "|---|---|"]
    lines += [f"| {name} | {_shown(value)} |" for name, value in facts.items()]
    return "\n".join([*lines, "", "All settings are in `config.json`."])


def _go_on(report: Mapping[str, Any], folder: str) -> str:
    lines = ["## How to go on", ""]
    if report["checkpoint"]:
        lines += [
            f"- Train further: the same command with `--resume {folder}`, and `--steps` with the new total.",
            f"- Serve it as an OpenAI-compatible API: `lightning-sdk serve --model {folder}/{report['checkpoint']}`.",
            f"- The model, in Hugging Face format: `{folder}/{report['checkpoint']}`.",
        ]
    lines += [
        "- Compare runs: `lightning-sdk runs`.",
        f"- All curves: `tensorboard --logdir {folder}/tensorboard`.",
    ]
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def _shown(value: str | float) -> str:
    if isinstance(value, bool) or not isinstance(value, float) or not math.isfinite(value):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return f"{value:.6g}"
