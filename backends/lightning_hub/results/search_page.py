"""What `report.md` says of a search for texts: how it went, what was chosen, and how far the choice flatters itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_sdk.results.quantity import quantity
from lightning_sdk.results.run_report import RunReport
from lightning_sdk.settings.provider import PROVIDER


def headline(report: RunReport) -> str:
    """What was tuned."""
    search = report.search
    if not search:
        rounds = quantity(report.steps, "round")
        return f"A search for better texts was {report.status} after {rounds}; `--resume` continues it."
    names = ", ".join(f"`{each['name']}`" for each in search["components"])
    served = "" if report.model == PROVIDER else f"; the agent's model was `{report.model}`, which was not trained"
    ended = "" if report.status == "finished" else f"; the run was {report.status} before its end"
    return (
        f"The instructions {names} were tuned in {quantity(search['rounds'], 'round')} of the algorithm "
        f"`{search['algorithm']}`, with {search['reflect_with']} as the reflecting model{served}{ended}."
    )


def section(report: RunReport) -> str:
    """The search in words, a table and the texts; '' if the run did not come to its end."""
    search = report.search
    if not search:
        return ""
    return "\n\n".join(["## The search", *_course(search), _scores(search, bool(report.phases)), *_texts(search)])


def _course(search: Mapping[str, Any]) -> Iterator[str]:
    spent, counts = search["spent"], search["candidates"]
    yield f"It ended because {search['ended']}."
    if search["nothing"]:
        yield f"**The texts stay as they are**: {search['nothing']}."
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if state != "seed") or "none"
    yield (
        f"{spent['rollouts']} of {search['allowance']['rollouts']} rollouts were run and "
        f"{quantity(spent['calls'], 'call')} to models made, {spent['reflections']} of them of the reflecting model, "
        f"with {spent['tokens']:,} tokens in all{_price(spent)}. "
        f"Candidates: {told}. `candidates.jsonl` has each with its parents, scores and texts."
    )
    if search["interrupted"]:
        yield (
            quantity(search["interrupted"], "rollout was", "rollouts were")
            + " under way when the run was interrupted, and run again; each counts once."
        )


def _price(spent: Mapping[str, Any]) -> str:
    return f", for ${spent['money']:.4g}" if spent.get("money") else ""


def _scores(search: Mapping[str, Any], of_phases: bool) -> str:
    selection = search["selection"]
    before, after = ("-" if selection[name] is None else f"{selection[name]:.3f}" for name in ("before", "after"))
    began_with = "the texts that it began with" if of_phases else "the agent's own texts"
    lines = [
        f"| on the {search['tasks']['selection']} selection tasks | score |",
        "|---|---|",
        f"| {began_with} | {before} |",
        f"| candidate `{search['chosen']}` | {after} |",
    ]
    if selection["compared"] > 1:
        lines.append(
            f"\nThe candidate was chosen for this score, so the score flatters it: the best of {selection['compared']} "
            f"candidates that are all equally good would seem {selection['luck']:.3f} better than they are, by chance "
            "alone. What counts is the score on held-out tasks, which the search has never seen."
        )
    return "\n".join(lines)


def _texts(search: Mapping[str, Any]) -> Iterator[str]:
    for each in search["components"]:
        new = search["texts"][each["name"]]
        if new != each["text"]:
            yield f"### {each['name']}\n\nIt was:\n\n{_block(each['text'])}\n\nChosen:\n\n{_block(new)}"


def _block(text: str) -> str:
    """A text as it stands, whatever it holds."""
    return "\n".join(f"    {line}" for line in text.splitlines())
