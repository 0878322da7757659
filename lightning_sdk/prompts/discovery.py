"""Discovery: which texts a role has, from its requests of several tasks, and what of each is the same in all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from lightning_sdk.prompts.instructions import USER, Instruction, find_instructions, find_user_texts
from lightning_sdk.prompts.placeholders import TOKEN
from lightning_sdk.prompts.template import TextTemplate

_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_FEWEST_LETTERS = 4
"""Letters and digits that a static part between two holes needs: fewer may be the same by chance."""
_SHARE = 0.4
"""How much of the shorter of two texts has to stand in both, for them to be of one template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRequest:
    """One request of a role."""

    task: str
    """Which task it belongs to."""
    body: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class RoleText:
    """One text of a role, as its requests show it."""

    kind: str
    """'system', 'developer', 'tool' or 'user'."""
    tool: str = ""
    template: TextTemplate
    requests: int = 0
    """In how many requests it stood."""
    tasks: set[str] = field(default_factory=set)
    marked: dict[str, str] = field(default_factory=dict)
    """Name of a text marked with `lightning.prompt` that stands in it -> 'whole' or 'part'."""

    @property
    def text(self) -> str:
        """The template with placeholders in its holes: what a candidate is given as the text to replace."""
        return str(self.template)


def find_role_texts(requests: Sequence[RoleRequest], marks: Mapping[str, str] | None = None) -> list[RoleText]:
    """The texts of one role, in the order in which they were first seen.

    Texts of one kind that are alike in most of what they say are one template. What users say is listed only where a
    marked text stands in it.

    Args:
        marks: Name of each text marked with `lightning.prompt` -> what it says.
    """
    marks, found = marks or {}, list[_Cluster]()
    for request in requests:
        for each in find_instructions(request.body):
            _file(found, each, request.task)
    texts = [cluster.describe(marks) for cluster in _merge(found)]
    return [*texts, *_marked_user_texts(requests, marks, {name for each in texts for name in each.marked})]


def common_template(texts: Iterable[str]) -> TextTemplate | None:
    """What all the texts have in common, with a hole wherever they differ; None if that is nothing.

    It matches each of the texts. Its holes are called {hole_1}, {hole_2} and so on, unless the texts hold such words
    themselves.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return None
    runs = [_WORD.findall(distinct[0])]
    for text in distinct[1:]:
        runs = _in_common(runs, _WORD.findall(text))
    return _template(runs, distinct)


def find_marked(text: str, marks: Mapping[str, str]) -> dict[str, str]:
    """Name of each marked text that stands in `text` -> 'whole' where it is all of it, else 'part'."""
    found: dict[str, str] = {}
    for name, says in marks.items():
        for wanted in (TextTemplate.of_text(says), TextTemplate.of_text(says.strip()), TextTemplate.of_format(says)):
            if wanted is None:
                continue
            if text == says or (wanted.can_match and wanted.match(text) is not None):
                found[name] = "whole"
                break
            if wanted.can_match and wanted.search(text) is not None:
                found[name] = "part"
    return found


class _Cluster:
    """Texts of one kind that are of one template."""

    def __init__(self, first: Instruction) -> None:
        self.kind, self.tool = first.kind, first.tool
        self.texts: dict[str, int] = {}
        """Each of them -> in how many requests it stood."""
        self.tasks: set[str] = set()
        self._runs = [_WORD.findall(first.text)]

    def add(self, text: str, task: str) -> None:
        self.texts[text] = self.texts.get(text, 0) + 1
        self.tasks.add(task)

    def take(self, other: _Cluster) -> bool:
        """Take in one that has a single text, if that is alike; whether it was."""
        if (self.kind, self.tool) != (other.kind, other.tool):
            return False
        (text,) = other.texts
        runs = _in_common(self._runs, _WORD.findall(text))
        shortest = min(_letters(each) for each in (*self.texts, text))
        if _letters("".join(_parts(runs))) < max(1, _SHARE * shortest):
            return False
        self._runs, self.texts, self.tasks = runs, self.texts | other.texts, self.tasks | other.tasks
        return True

    def describe(self, marks: Mapping[str, str]) -> RoleText:
        marked: dict[str, str] = {}
        for each in self.texts:
            marked |= find_marked(each, marks)
        return RoleText(
            kind=self.kind,
            tool=self.tool,
            template=_template(self._runs, list(self.texts)) or TextTemplate((next(iter(self.texts)),), ()),
            requests=sum(self.texts.values()),
            tasks=self.tasks,
            marked=marked,
        )


def _file(clusters: list[_Cluster], each: Instruction, task: str) -> None:
    """Put a text to its equals, or by itself."""
    for cluster in clusters:
        if (cluster.kind, cluster.tool) == (each.kind, each.tool) and each.text in cluster.texts:
            cluster.add(each.text, task)
            return
    clusters.append(_Cluster(each))
    clusters[-1].add(each.text, task)


def _merge(clusters: list[_Cluster]) -> list[_Cluster]:
    """Clusters of equal texts, put together where they are alike."""
    merged: list[_Cluster] = []
    for cluster in clusters:
        if not any(each.take(cluster) for each in merged):
            merged.append(cluster)
    return merged


def _marked_user_texts(
    requests: Sequence[RoleRequest], marks: Mapping[str, str], known: set[str]
) -> Iterator[RoleText]:
    """Marked texts that no instruction holds, where users' texts do."""
    found: dict[str, RoleText] = {}
    for request in requests:
        for each in find_user_texts(request.body):
            for name, how in find_marked(each.text, {n: marks[n] for n in marks if n not in known}).items():
                here = found.setdefault(name, RoleText(kind=USER, template=TextTemplate.of_text(marks[name])))
                here.requests += 1
                here.tasks.add(request.task)
                here.marked[name] = how
    yield from found.values()


# --- what texts have in common


def _in_common(runs: list[list[str]], words: list[str]) -> list[list[str]]:
    """What is left of the runs of words, one hole between each two, once `words` has to fit in as well."""
    left: list[list[str]] = [[]]
    whole: list[str | None] = [word for run in runs for word in (*run, None)][:-1]
    for begin, length in _blocks(whole, words):
        # What stood between this block and the one before, in either text, is a hole now.
        for word in whole[begin : begin + length]:
            if word is not None:
                left[-1].append(word)
        left.append([])
    return left[:-1] or [[], []]


def _blocks(whole: list[str | None], words: list[str]) -> Iterator[tuple[int, int]]:
    """Where in `whole` the words begin and how many they are that stand in both, with one block for each run, also an
    empty one at either end where the texts begin or end differently."""
    head = 0
    while head < min(len(whole), len(words)) and whole[head] == words[head]:
        head += 1
    tail = 0
    while tail < min(len(whole), len(words)) - head and whole[-1 - tail] == words[-1 - tail]:
        tail += 1
    yield 0, head
    inside = whole[head : len(whole) - tail], words[head : len(words) - tail]
    for block in SequenceMatcher(None, *inside, autojunk=False).get_matching_blocks():
        if block.size:
            yield head + block.a, block.size
    yield len(whole) - tail, tail


def _template(runs: list[list[str]], texts: Sequence[str]) -> TextTemplate | None:
    """The template of these runs of words; None if they say nothing."""
    parts = _parts(runs)
    if len(parts) > 1 and not any(map(str.strip, parts)):
        return None
    return TextTemplate(tuple(parts), tuple(_hole_names(len(parts) - 1, texts)))


def _parts(runs: list[list[str]]) -> list[str]:
    """Runs of words as text, without those in the middle that are the same by chance: their place belongs to the hole
    around them."""
    first, *rest = ("".join(run) for run in runs)
    return [first, *(each for each in rest[:-1] if _letters(each) >= _FEWEST_LETTERS), *rest[-1:]]


def _hole_names(count: int, texts: Sequence[str]) -> Iterator[str]:
    taken = {token for text in texts for token in TOKEN.findall(text)}
    names = (name for number in range(1, count + len(taken) + 1) if (name := f"{{hole_{number}}}") not in taken)
    for _, name in zip(range(count), names, strict=False):
        yield name


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))
