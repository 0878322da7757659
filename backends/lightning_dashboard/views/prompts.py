"""The search for better prompts: each candidate with parents, scores and texts, and what reflection read and wrote."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning_dashboard.query import ViewQuery
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_hub.statistics.interval import interval
from lightning_sdk.results.prompt_search import JOURNAL, FoundCandidate, PromptSearch, read_prompt_search
from lightning_sdk.results.run_files import read_lines

#: Replies of the reflecting model that are sent, the last ones.
_MOST_REPLIES = 500
_MOST_CHARACTERS = 60_000


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """PromptError if the run tuned no prompts, or has no candidate yet."""
    run = runs.open(query.require("run"))
    return run.keep("prompts", run.version(), lambda: _read(run))


def _read(run: RunReader) -> dict[str, Any]:
    search = read_prompt_search(run.folder)
    lines = _journal(run.folder)
    scores = _scores(lines)
    replies = [each for each in lines if each.get("kind") == "reply"][-_MOST_REPLIES:]
    report = run.report
    held_out = {} if report is None else {name: each.as_dict() for name, each in report.held_out.items()}
    return {
        "texts": [
            {"name": each.name, "text": each.text, "roles": list(each.roles), "mark": each.mark}
            for each in search.texts
        ],
        "chosen": search.chosen,
        "verdict": search.verdict,
        "held_out": held_out,
        "candidates": [_describe(search, each, scores, replies) for each in search.candidates],
        "replies": [
            {
                "asked": str(each.get("asked", ""))[:_MOST_CHARACTERS],
                "text": str(each["reply"].get("text", ""))[:_MOST_CHARACTERS],
                "error": str(each["reply"].get("error", "")),
            }
            for each in replies
        ],
    }


def _journal(folder: Path) -> list[dict[str, Any]]:
    """What the search wrote down, also that of a run in which it takes turns with training."""
    paths = [folder / JOURNAL, *sorted((folder / "phases").glob(f"*/{JOURNAL}"))]
    return [line for path in paths for line in read_lines(path).whole]


def _scores(lines: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Candidate -> task -> scores of its rollouts on that task, whatever they were run for."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line.get("kind") == "result" and line["result"].get("score") is not None:
            found[str(line["key"][0])][str(line["key"][1])].append(float(line["result"]["score"]))
    return found


def _describe(
    search: PromptSearch, each: FoundCandidate, scores: dict[str, dict[str, list[float]]], replies: list[dict[str, Any]]
) -> dict[str, Any]:
    # One that was refused as known already has the id of the one that it repeats, and ran nowhere.
    ran = {} if each.state == "refused" else scores.get(each.id, {})
    by_task = [sum(values) / len(values) for values in ran.values()]
    return {
        "id": each.id,
        "parents": list(each.parents),
        "origin": each.origin,
        "state": each.state,
        "reason": each.reason,
        "round": each.round,
        "selection": each.selection,
        "selection_tasks": each.selection_tasks,
        "all": interval(by_task).as_dict() if by_task else None,
        "rollouts": each.rollouts,
        "failed": each.failed,
        "texts": dict(each.texts),
        "chosen": each.id == search.chosen and each.state != "refused",
        "replies": [place for place, reply in enumerate(replies) if _wrote(reply, search, each)],
    }


def _wrote(reply: dict[str, Any], search: PromptSearch, candidate: FoundCandidate) -> bool:
    """Whether the reply holds one of the texts in which the candidate is not the agent's own."""
    text = str(reply["reply"].get("text", ""))
    changed = [candidate.texts[each.name].strip() for each in search.texts if candidate.texts[each.name] != each.text]
    return any(each and each in text for each in changed)
