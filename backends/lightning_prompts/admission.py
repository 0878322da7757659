"""Admission: which proposed texts may be tried. What does not fit is refused with a reason, and never repaired."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_prompts.candidate import Component, PromptCandidate
from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.placeholders import longest_allowed, refuse_unfit
from lightning_sdk.rollouts.tasks import Task

_RUN_WORDS = 8
"""Words in a row that are a copy, if a task has them and few others do."""
_SHORT_WORDS, _SHORT_LETTERS = 3, 20
"""A whole value of a task that is shorter than a run of words is a copy if it has at least so many."""
_MOST_SHARED = 0.1
"""Share of the tasks up to which words belong to single tasks, and not to the form of all."""
_WORD = re.compile(r"\w+")

_Run = tuple[str, ...]


class Refusal(Exception):
    """A proposal that cannot be tried; the message says why, for people and for the reflecting model."""


class Admission:
    """What one search admits."""

    def __init__(self, components: Sequence[Component], tasks: Sequence[Task], max_length: int = 0) -> None:
        """`tasks`: those that the reflecting model could copy from. `max_length`: characters of one text; 0: as many
        as the SDK allows in its place."""
        self._components = {each.name: each for each in components}
        self._max_length = max_length
        self._copies = _runs_of_tasks(tasks) - {run for each in components for run in _runs_in(each.text)}

    def limit(self, component: Component) -> int:
        """Characters that a text of this component may have."""
        allowed = longest_allowed(component.text)
        return min(self._max_length, allowed) if self._max_length else allowed

    def refuse(self, candidate: PromptCandidate, known: Mapping[str, Any]) -> None:
        """Refusal for a candidate that cannot be tried. `known`: ids of those that there are."""
        for name, text in candidate.texts.items():
            component = self._components[name]
            try:
                refuse_unfit(f"the text for {name!r}", component.text, text, limit=self.limit(component))
            except PromptError as error:
                raise Refusal(str(error)) from None
            self._refuse_copy(name, text)
            self._refuse_swap(component, text, candidate.texts)
        if candidate.id in known:
            raise Refusal("its texts are those of a candidate that was tried before")

    def _refuse_copy(self, name: str, text: str) -> None:
        if copy := next((run for run in _runs_in(text) if run in self._copies), None):
            raise Refusal(f"the text for {name!r} copies a task: {' '.join(copy)!r}")

    def _refuse_swap(self, component: Component, text: str, texts: Mapping[str, str]) -> None:
        """A text that is another component's original could not be told from it in a request."""
        for name, other in self._components.items():
            if other is not component and other.text == text and texts[name] != text:
                raise Refusal(f"the text for {component.name!r} is word for word the original of {name!r}")


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
