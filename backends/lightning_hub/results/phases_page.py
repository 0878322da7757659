"""What `report.md` says of a run that trained weights and tuned prompts in turns: its phases, and what each gained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_report import RunReport


def headline(report: RunReport) -> str:
    """What was trained and tuned."""
    kinds = Counter(str(each["kind"]) for each in report.phases)
    told = " and ".join(f"{count} of {kind}" for kind, count in kinds.items())
    ended = "." if report.status == "finished" else f"; the run was {report.status} before its last step."
    return (
        f"The weights of `{report.model}`, with the `{report.backend}` backend, and the agent's prompts were improved "
        f"in turns: {quantity(report.steps, 'step')} in {quantity(len(report.phases), 'phase')} ({told}){ended}"
    )


def section(report: RunReport) -> str:
    """Each phase with its gain and its cost; '' if there is none."""
    if not report.phases:
        return ""
    tasks = report.facts.get("deciding_tasks", 0)
    lines = [
        "## The phases",
        "",
        "| phase | steps | before | after | gain | rollouts | seconds | why it was chosen |",
        "|---|---|---|---|---|---|---|---|",
        *map(_row, report.phases),
        "",
        f"Scores are those of the {quantity(tasks, 'task')} on which phases are compared, which nothing else used. "
        "What counts is the score on held-out tasks, which no choice depended on. `phases.jsonl` has all choices.",
    ]
    if any(phase.get("undone_to") is not None for phase in report.phases):
        lines += [
            "",
            "A phase that is undone made the score worse than the best one before it, beyond what chance explains: "
            "the run went on with the weights and prompts of that best score.",
        ]
    return "\n".join(lines)


def _row(phase: Mapping[str, Any]) -> str:
    before, after = ("-" if phase[name] is None else f"{phase[name]:.3f}" for name in ("before", "after"))
    undone = "" if phase.get("undone_to") is None else ", undone"
    cells = (
        f"{phase['number']} {phase['kind']}{undone}",
        f"{phase['first_step']} to {phase['last_step']}",
        before,
        after,
        f"{phase['gain']:+.3f}",
        f"{phase['rollouts']:,}",
        f"{phase['seconds']:.0f}",
        phase["why"],
    )
    return f"| {' | '.join(cells)} |"
