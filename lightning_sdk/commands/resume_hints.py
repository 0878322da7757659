"""Resume hints: what is left of a training that ended early, and what to type to resume it."""

from __future__ import annotations

import shlex
from pathlib import Path

from lightning_sdk.commands import earlier_run
from lightning_sdk.results.run_files import read_config
from lightning_sdk.tracking.places import log_to

_KEPT = "and keeps a score that was measured before"


def after_death(folder: Path) -> str:
    """How a training goes on whose hub, backend or disk failed."""
    if not _can_resume(folder):
        return "Nothing had been written yet: start it again."
    if _is_search(folder):
        return f"Nothing that was confirmed is lost; {_resume_option(folder)} continues the search where it was."
    saved = earlier_run.last_checkpoint(folder)
    if not saved:
        return f"There was no checkpoint yet: {_resume_option(folder)} starts again at step 1, {_KEPT}."
    again = _resume_option(folder)
    return f"Nothing that was confirmed is lost; {again} continues from the last checkpoint, after step {saved}."


def after_failures(folder: Path) -> str:
    """How a training goes on that stopped since too many rollouts failed; '' where nothing was kept yet."""
    if _is_search(folder):
        return f"Once that is fixed, {_resume_option(folder)} continues the search where it was."
    saved = earlier_run.last_checkpoint(folder)
    return f"Once that is fixed, {_resume_option(folder)} continues after step {saved}." if saved else ""


def after_stop(folder: Path) -> str:
    """What is left of a training that was stopped with Ctrl-C, and how it goes on."""
    if _is_search(folder):
        return f"the search was stopped; {_resume_option(folder)} continues it where it was"
    saved = earlier_run.last_checkpoint(folder)
    if saved:
        return (
            f"the training was stopped after step {saved}; the model is in {folder}/checkpoints/step-{saved:05d}; "
            f"{_resume_option(folder)} continues from there"
        )
    begun = "the training was stopped before its first step finished; nothing was learned"
    if not _can_resume(folder):
        return f"{begun}, and nothing had been written yet: start it again"
    return f"{begun}; {_resume_option(folder)} starts at step 1, {_KEPT}"


def _is_search(folder: Path) -> bool:
    """Whether the run looks for texts, and keeps each rollout of the search."""
    return (folder / "search.jsonl").is_file()


def _can_resume(folder: Path) -> bool:
    """Whether the run wrote how it was started, which is the first thing that it does."""
    return (folder / "config.json").is_file()


def _resume_option(folder: Path) -> str:
    """What to type; the whole command where the run knows what it was started with."""
    config = read_config(folder)
    command = "lightning-sdk train " if config is not None and config.origin.is_complete else ""
    options = ["--resume", str(folder), *(word for each in log_to(folder) for word in ("--log-to", each))]
    arguments = [f"resume={str(folder)!r}", *([f"log_to={log_to(folder)}"] if log_to(folder) else [])]
    return f"{command}{shlex.join(options)} ({', '.join(arguments)})"
