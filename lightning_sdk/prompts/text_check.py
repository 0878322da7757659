"""The check of texts that stand in the place of an agent's own: what every candidate of a search has to pass.

A search asks it before it tries a text, and the hub before it runs one. What does not fit is refused, never repaired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.prompts.placeholders import longest_allowed, refuse_unfit

_RUN_WORDS = 8
"""Words in a row that are a copy, if a task has them and few others do."""
_SHORT_WORDS, _SHORT_LETTERS = 3, 20
"""A whole value of a task that is shorter than a run of words is a copy if it has at least so many."""
_MOST_SHARED = 0.1
"""Share of the tasks up to which words belong to single tasks, and not to the form of all."""
_WORD = re.compile(r"\w+")

Task = Mapping[str, Any]
_Run = tuple[str, ...]


class TextCheck:
    """What one run allows."""

    def __init__(self, tasks: Sequence[Task], max_length: int = 0) -> None:
        """`tasks`: those that a text could copy from. `max_length`: characters of one text; 0: as many as the SDK
        allows in its place."""
        self._max_length, self._copies = max_length, _runs_of_tasks(tasks)

    def allow(self, texts: Iterable[str]) -> None:
        """What the agent says by itself is not a copy, even if tasks say it too."""
        self._copies -= {run for each in texts for run in _runs_in(each)}

    def limit(self, original: str) -> int:
        """Characters that a text in the place of `original` may have."""
        allowed = longest_allowed(original)
        return min(self._max_length, allowed) if self._max_length else allowed

    def refuse(self, what: str, original: str, text: str) -> None:
        """PromptError for a text that cannot stand in the place of `original`. `what` names it in the message."""
        refuse_unfit(what, original, text, limit=self.limit(original))
        if copy := next((run for run in _runs_in(text) if run in self._copies), None):
            raise PromptError(f"{what} copies a task: {' '.join(copy)!r}")

    def refuse_candidate(self, candidate: Candidate) -> None:
        """PromptError for a candidate with a text that cannot stand in the place of the agent's own."""
        self.allow(candidate.texts)
        for original, text in candidate.texts.items():
            self.refuse(f"candidate {candidate.id!r}: what replaces {candidate.describe(original)}", original, text)


def _runs_of_tasks(tasks: Sequence[Task]) -> set[_Run]:
    """Runs of words that belong to single tasks."""
    found: Counter[_Run] = Counter()
    for task in tasks:
        found.update({run for value in _texts(task) for run in _value_runs(value)})
    most = max(1, int(_MOST_SHARED * len(tasks)))
    return {run for run, count in found.items() if count <= most}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _value_runs(value: str) -> Iterator[_Run]:
    words = _words(value)
    if len(words) >= _RUN_WORDS:
        yield from _windows(words, _RUN_WORDS)
    elif len(words) >= _SHORT_WORDS and sum(map(len, words)) >= _SHORT_LETTERS:
        yield tuple(words)


def _runs_in(text: str) -> Iterator[_Run]:
    """Every run of words in a candidate's text that could be a copy."""
    words = _words(text)
    for length in range(_SHORT_WORDS, _RUN_WORDS + 1):
        yield from _windows(words, length)


def _windows(words: Sequence[str], length: int) -> Iterator[_Run]:
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])
