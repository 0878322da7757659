"""What a search for prompts left in its run's folder: the texts that it tuned, its candidates, and the one it chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sdk.errors import PromptError
from lightning_sdk.results.run_files import read_config, read_lines, read_report

CANDIDATES, JOURNAL = "candidates.jsonl", "search.jsonl"
CHOSEN, SEED = "chosen", "seed"
"""Words for the candidate that the search chose, and for the agent's own texts, in place of an id."""
_SHOWN_IDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedText:
    """A text that was tuned."""

    name: str
    text: str
    """What the agent says by itself."""
    roles: tuple[str, ...] = ()
    mark: str = ""
    """The name that `lightning.prompt` marks it with; '' if it is not marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCandidate:
    """One candidate, as candidates.jsonl has it."""

    id: str
    parents: tuple[str, ...]
    origin: str
    state: str
    """'seed', 'accepted', 'rejected', 'refused' or 'proposed'."""
    reason: str
    texts: Mapping[str, str]
    selection: float | None
    """Mean score on the selection tasks that it has a score on; None if there is none."""
    selection_tasks: int
    rollouts: int | None
    """None where an older version wrote the file."""
    failed: int
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSearch:
    """The search of one run."""

    folder: Path
    texts: Sequence[TunedText]
    candidates: Sequence[FoundCandidate]
    """In the order in which they were proposed, those that were refused last."""
    chosen: str
    """Id of the chosen candidate; '' if the search is not over."""
    verdict: str
    """Of the chosen candidate on held-out tasks; '' if there is none yet."""

    @property
    def seed(self) -> FoundCandidate:
        """The agent's own texts."""
        return next(each for each in self.candidates if each.state == SEED)

    def candidate(self, name: str = CHOSEN) -> FoundCandidate:
        """The candidate of this id or of an id that begins so; also 'chosen' and 'seed'.

        Raises:
            PromptError: there is none or more than one, or none is chosen yet.
        """
        if name == SEED:
            return self.seed
        if name == CHOSEN:
            if not self.chosen:
                raise PromptError(
                    f"the search of {self.folder} is not over, so no candidate is chosen; name one: {self._ids()}"
                )
            name = self.chosen
        # One that was refused as known already has the id of the one that it repeats, which comes first.
        found = {each.id: each for each in reversed(self.candidates) if name and each.id.startswith(name)}
        if len(found) > 1 and name in found:
            return found[name]
        if len(found) != 1:
            what = "has no candidate" if not found else "has several candidates that begin with"
            raise PromptError(f"{self.folder} {what} {name!r}; its candidates: {self._ids()}")
        return next(iter(found.values()))

    def _ids(self) -> str:
        ids = list(dict.fromkeys(each.id for each in self.candidates if each.state != SEED))
        shown = [*ids[:_SHOWN_IDS], *([f"and {len(ids) - _SHOWN_IDS} more"] if len(ids) > _SHOWN_IDS else [])]
        return ", ".join([f"{self.seed.id} ({SEED})", *shown])


def read_prompt_search(folder: Path) -> PromptSearch:
    """The search of the run in this folder.

    Raises:
        PromptError: the run tuned no prompts, has no candidates yet, or its files are damaged.
    """
    config = read_config(folder)
    if config is None or config.search is None:
        raise PromptError(
            f"{folder} is a run that did not tune prompts; one does with: lightning-sdk train ... --backend prompts"
        )
    try:
        candidates = [_read_candidate(each) for each in read_lines(folder / CANDIDATES).whole]
        components = config.search.get("components") or _components_so_far(folder)
        texts = [
            TunedText(
                name=str(each["name"]), text=str(each["text"]), roles=tuple(each["roles"]), mark=str(each["mark"])
            )
            for each in components
        ]
        if any(set(each.texts) != {text.name for text in texts} for each in candidates):
            raise ValueError("a candidate has other texts than the search")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(f"the candidates in {folder} cannot be read: {type(error).__name__}: {error}") from None
    if not any(each.state == SEED for each in candidates):
        raise PromptError(
            f"{folder} has no candidates: its search was stopped before its first round, or is in it; "
            f"lightning-sdk train --resume {folder} continues a search that was stopped"
        )
    report = read_report(folder)
    verdict = report.verdict if report is not None and config.search else ""
    chosen = str(config.search.get("chosen") or "")
    return PromptSearch(folder=folder, texts=texts, candidates=candidates, chosen=chosen, verdict=verdict or "")


def _components_so_far(folder: Path) -> list[dict[str, Any]]:
    """Those of a search that is not over."""
    facts = (each for each in read_lines(folder / JOURNAL).whole if each.get("kind") == "fact")
    return next((each["value"] for each in facts if each["name"] == "components"), [])


def _read_candidate(line: Mapping[str, Any]) -> FoundCandidate:
    score = line["scores"].get("selection")
    return FoundCandidate(
        id=str(line["id"]),
        parents=tuple(map(str, line["parents"])),
        origin=str(line["origin"]),
        state=str(line["state"]),
        reason=str(line["reason"]),
        texts={str(name): str(text) for name, text in line["texts"].items()},
        selection=None if score is None else float(score),
        selection_tasks=int(line["tasks"].get("selection", 0)),
        rollouts=line.get("rollouts"),
        failed=int(line["failed"]),
        round=int(line["round"]),
    )
