"""`prompts list`, `show`, `diff`, `promote` and `export` of a run: the candidates that its search for prompts tried."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import refuse_unfit
from lightning_sdk.prompts.store import PromptStore, is_prompt_name
from lightning_sdk.results.prompt_search import FoundCandidate, PromptSearch, TunedText

_REASON_WIDTH = 70


def list_candidates(search: PromptSearch) -> str:
    """A table of every candidate, in the order in which they were proposed."""
    rows: list[tuple[str, ...]] = [("id", "parents", "state", "selection", "rollouts", "failed", "why")]
    rows += [_row(search, each) for each in search.candidates]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_legend(search)])


def candidates_as_json(search: PromptSearch) -> str:
    """The same, with the texts."""
    return json.dumps(
        [
            {
                "id": each.id,
                "parents": list(each.parents),
                "origin": each.origin,
                "state": each.state,
                "why": each.reason,
                "chosen": each.id == search.chosen and each.state != "refused",
                "round": each.round,
                "selection": each.selection,
                "selection_tasks": each.selection_tasks,
                "rollouts": each.rollouts,
                "failed": each.failed,
                "texts": dict(each.texts),
            }
            for each in search.candidates
        ]
    )


def show_candidate(search: PromptSearch, candidate: FoundCandidate) -> str:
    """What is known of a candidate, and its texts."""
    lines = [f"candidate {candidate.id}, {_state(search, candidate)}"]
    if candidate.reason:
        lines.append(f"why       {candidate.reason}")
    if candidate.parents:
        lines.append(f"made from {', '.join(candidate.parents)} by {candidate.origin}, in round {candidate.round}")
    lines.append(f"score     {_score(candidate)}")
    for text in search.texts:
        changed = "" if candidate.texts[text.name] != text.text else ", as the agent has it"
        lines += ["", f"--- {_describe(text)}{changed}", candidate.texts[text.name]]
    return "\n".join(lines)


def compare_candidates(search: PromptSearch, new: FoundCandidate, old: FoundCandidate) -> str:
    """A unified diff for each text that is not the same in both."""
    parts: list[str] = []
    for text in search.texts:
        before, after = (each.texts[text.name].splitlines() for each in (old, new))
        names = f"{text.name} {_label(search, old)}", f"{text.name} {_label(search, new)}"
        parts += difflib.unified_diff(before, after, *names, lineterm="")
    same = f"{_label(search, new)} and {_label(search, old)} have the same texts"
    return "\n".join(parts) or same


def promote_candidate(search: PromptSearch, candidate: FoundCandidate, store: PromptStore, note: str = "") -> str:
    """Write a version of every marked text that the candidate changes, and say what has to be done by hand.

    Raises:
        PromptError: the candidate changes nothing, a text does not fit, or none of the changed texts is marked. Nothing
            was written.
    """
    changed = [each for each in search.texts if candidate.texts[each.name] != each.text]
    if not changed:
        raise PromptError(
            f"candidate {candidate.id} has the agent's own texts, so there is nothing to promote; to promote another "
            f"one, name it: lightning-sdk prompts list {search.folder}"
        )
    by_hand = "\n".join(line for each in changed if not each.mark for line in _by_hand(each, candidate))
    marked = [each for each in changed if each.mark]
    if not marked:
        raise PromptError(f"none of the changed texts is marked with lightning.prompt, so none is promoted.\n{by_hand}")
    defaults = {each.mark: _default_in_code(store, each) for each in marked}
    for each in marked:
        if not is_prompt_name(each.mark):
            raise PromptError(f"{search.folder} names a marked text {each.mark!r:.120}, which cannot be a name")
        refuse_unfit(f"the text for {each.mark!r}", defaults[each.mark], candidate.texts[each.name])
    lines = [] if candidate.id != search.chosen else list(_warnings(search))
    note = note or f"candidate {candidate.id} of {search.folder.name}, {_score(candidate)}"
    for each in marked:
        lines += _promote(store, each, candidate.texts[each.name], defaults[each.mark], note)
    return "\n".join([*lines, *([by_hand] if by_hand else [])])


def texts_to_export(search: PromptSearch, candidate: FoundCandidate) -> Mapping[str, str]:
    """Name, also of a file, -> text."""
    texts = {each.mark or each.name: candidate.texts[each.name] for each in search.texts}
    if wrong := [name for name in texts if not is_prompt_name(name)]:
        # The name of a role may hold anything; that of a file may not.
        texts = {(_file_name(name) if name in wrong else name): text for name, text in texts.items()}
        if len(texts) != len(search.texts):
            raise PromptError(f"the texts {', '.join(map(repr, wrong))} cannot be told apart by names of files")
    return texts


def _file_name(name: str) -> str:
    kept = "".join(each if (each.isalnum() and each.isascii()) or each in "._-" else "_" for each in name)
    return kept.lstrip(".-")[:100] or "text"


def _promote(store: PromptStore, text: TunedText, new: str, default: str, note: str) -> Iterator[str]:
    before = store.find(text.mark)
    if before is not None and before.version is not None and before.text() == new:
        yield f"{text.mark}: version {before.current} has this text already, and counts"
        return
    if before is not None and before.text() != text.text:
        yield f"{text.mark}: the run began with another text than version {before.current}, which counted until now"
    made = store.promote(text.mark, new, default, note)
    yield f"{made.name}: version {made.current} counts from the next start on ({store.folder})"


def _default_in_code(store: PromptStore, text: TunedText) -> str:
    """What the code says: the run began with it, or with a version that was promoted in its place."""
    stored = store.find(text.mark)
    versions = stored.versions if stored is not None else []
    return next((each.default for each in reversed(versions) if each.text == text.text), text.text)


def _by_hand(text: TunedText, candidate: FoundCandidate) -> Iterator[str]:
    """What to do with a text that is not marked."""
    new = candidate.texts[text.name]
    yield f"{_describe(text)}: not promoted, because the code does not mark it. Put this text into the code yourself:"
    yield from (f"    {line}" for line in new.splitlines())
    if "{hole_" in text.text:
        yield "  where {hole_1} and so on stand for what the code fills in."
    name = text.name if is_prompt_name(text.name) else _file_name(text.name)
    yield "  To promote such a text the next time, mark it where the code has it, and train again:"
    yield f'    lightning.prompt("{name}", default=...)'


def _warnings(search: PromptSearch) -> Iterator[str]:
    if search.verdict not in {"", "better"}:
        yield f"note: on held-out tasks the chosen candidate is {search.verdict}"


# --- in words


def _row(search: PromptSearch, each: FoundCandidate) -> tuple[str, ...]:
    return (
        each.id,
        ",".join(each.parents) or "-",
        _state(search, each),
        "-" if each.selection is None else f"{each.selection:.3f} on {each.selection_tasks}",
        "-" if each.rollouts is None else str(each.rollouts),
        str(each.failed),
        each.reason if len(each.reason) <= _REASON_WIDTH else f"{each.reason[:_REASON_WIDTH]}...",
    )


def _legend(search: PromptSearch) -> Iterator[str]:
    yield "selection: mean score on the selection tasks that the candidate was run on. seed: the agent's own texts."
    if not search.chosen:
        yield "The search is not over, so no candidate is chosen."
    elif search.chosen == search.seed.id:
        yield "The search chose the agent's own texts."
    else:
        yield f"lightning-sdk prompts diff {search.folder} shows what the chosen candidate changes."


def _state(search: PromptSearch, each: FoundCandidate) -> str:
    return f"{each.state}, chosen" if each.id == search.chosen and each.state != "refused" else each.state


def _score(candidate: FoundCandidate) -> str:
    if candidate.selection is None:
        return "no score on the selection tasks"
    return f"{candidate.selection:.3f} on {candidate.selection_tasks} selection tasks"


def _label(search: PromptSearch, each: FoundCandidate) -> str:
    return "as the agent has it" if each.id == search.seed.id else each.id


def _describe(text: TunedText) -> str:
    roles = ", ".join(repr(each) for each in text.roles if each) or "calls of no role"
    return f"{text.mark} (marked, {roles})" if text.mark else f"{text.name} (instruction of {roles})"


def export_folder(search: PromptSearch, candidate: FoundCandidate) -> Path:
    """Where the texts of a candidate are written if the user names no folder."""
    return Path(f"{search.folder.name}-{candidate.id}")
