"""A candidate: other texts for some of an agent's prompts, put into the requests of one rollout.

A text is found by what it says and never by where it stands. What is put in is not looked at again, so that one text of
a candidate never changes another one. A candidate belongs to one rollout and is fixed for its length.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning_sdk.errors import PromptError
from lightning_sdk.prompts.instructions import Place, find_instructions, find_user_texts, put_texts
from lightning_sdk.prompts.placeholders import TOKEN, refuse_unfit
from lightning_sdk.prompts.template import TextTemplate


class _Change(NamedTuple):
    """One text that is looked for, and what comes in its place."""

    old: str
    """The text of the candidate that it belongs to, as the candidate names it."""
    wanted: TextTemplate
    instead: TextTemplate | None
    """None: it is the candidate's own text already, which `lightning.prompt` has given."""


class Candidate:
    """Texts that stand in the place of others while one rollout runs.

    Args:
        id: What the optimizer calls it; it is on the record of every call.
        texts: The text as requests carry it -> the text to send instead. Placeholders in the first are holes: they
            match anything, and what they match is filled into the second.
        names: Those of `texts` that are marked with `lightning.prompt` -> their names. They are also looked for inside
            longer texts, and in what users say.

    Raises:
        PromptError: a text cannot stand in the place of another one, or two of them could not be told apart.
    """

    __slots__ = ("_given", "_named", "_parts", "_templates", "_whole", "id", "names", "requests", "seen", "texts")

    def __init__(self, id: str, texts: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:  # noqa: A002
        self.id, self.texts, self.names = id, dict(texts), dict(names or {})
        self.seen: Counter[str] = Counter()
        """Text that is looked for -> in how many places of this rollout's requests it, or its substitute, stood."""
        self.requests = 0
        """Requests of this rollout that were looked at, with every new attempt to send one."""
        self._named = {name: old for old, name in self.names.items()}
        self._refuse()
        self._given: set[str] = set()
        """Texts whose substitutes the agent got from `lightning.prompt`: they are in its requests already."""
        # Whole texts cost one look into a dict; the others are tried one after another.
        self._whole: dict[str, tuple[str, str]] = {}
        self._templates: list[_Change] = []
        self._parts: list[_Change] = []
        for old, new in self.texts.items():
            self._prepare(old, new)

    @classmethod
    def from_message(cls, message: Any) -> Candidate:
        """The candidate that a hub sent; PromptError for what is none."""
        texts = message.get("texts") if isinstance(message, dict) else None
        names = message.get("names", {}) if isinstance(message, dict) else None
        if not isinstance(texts, dict) or not isinstance(names, dict) or not isinstance(message.get("id"), str):
            raise PromptError(f"expected a candidate with id, texts and names, got {message!r:.200}")
        if not all(isinstance(each, str) for pair in (*texts.items(), *names.items()) for each in pair):
            raise PromptError(f"candidate {message['id']!r}: every text and every name is a string")
        return cls(message["id"], texts, names)

    def as_message(self) -> dict[str, Any]:
        """The candidate as plain data; `from_message` undoes it."""
        return {"id": self.id, "texts": self.texts, **({"names": self.names} if self.names else {})}

    def text_of(self, name: str, text: str) -> str | None:
        """What stands in the place of the marked text `name`, which says `text`; None where it stays as it is.

        Where it is given to the agent, which puts it into its requests, they hold it already.
        """
        old = self._named.get(name, text)
        if (new := self.texts.get(old)) is None:
            return None
        self._given.add(old)
        if TOKEN.search(new) and not TextTemplate.of_text(new).can_match:
            self.seen[old] += 1  # too short to be found in a request once its placeholders are filled in
        return new

    def unseen(self) -> list[str]:
        """The texts that stood in no request of this rollout so far, neither as they were nor replaced."""
        return [old for old in self.texts if not self.seen[old]]

    def describe(self, old: str) -> str:
        """What to call one of its texts in a message: its name, or how it begins."""
        return repr(self.names[old]) if old in self.names else f"the text {_preview(old)}"

    def substitute(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request with the candidate's texts; the same object if nothing in it is to be replaced."""
        self.requests += 1
        found: dict[Place, str] = {}
        for place, _, text, _ in find_instructions(body):
            if (new := self._replace(text)) != text:
                found[place] = new
        for place, _, text, _ in find_user_texts(body) if self.names else ():
            if (new := self._replace(text, marked=True)) != text:
                found[place] = new
        return put_texts(body, found) if found else body

    def substitute_bytes(self, body: bytes) -> bytes:
        """The same for a request as JSON. What is no JSON object, or has nothing to replace, is given back as it is."""
        try:
            request = json.loads(body.decode())  # which saves guessing the encoding
        except (ValueError, RecursionError):
            return body
        if not isinstance(request, dict) or (new := self.substitute(request)) is request:
            return body
        return json.dumps(new).encode()

    # --- one text

    def _replace(self, text: str, *, marked: bool = False) -> str:
        """The text as the candidate has it. `marked`: only what is marked is looked for."""
        whole = self._whole.get(text)
        if whole is not None and (not marked or whole[0] in self.names):
            self.seen[whole[0]] += 1
            return whole[1]
        for change in self._templates:
            if marked and change.old not in self.names:
                continue
            if self._is_active(change) and (values := change.wanted.match(text)) is not None:
                self.seen[change.old] += 1
                return text if change.instead is None else change.instead.fill(values)
        return self._replace_parts(text) if self._parts else text

    def _is_active(self, change: _Change) -> bool:
        return change.instead is not None or change.old in self._given

    def _replace_parts(self, text: str) -> str:
        """The text with every marked text in it replaced."""
        pieces, at = list[str](), 0
        while found := self._next_part(text, at):
            begin, end, new = found
            pieces += (text[at:begin], new)
            at = end
        return "".join((*pieces, text[at:])) if pieces else text

    def _next_part(self, text: str, start: int) -> tuple[int, int, str] | None:
        """The first marked text from `start` on: where it begins and ends, and what comes there. Of those that begin in
        one place the longest."""
        best: tuple[int, int, str] | None = None
        seen = ""
        for change in self._parts:
            if not self._is_active(change) or (found := change.wanted.search(text, start)) is None:
                continue
            begin, end, values = found
            if best is None or (begin, -end) < (best[0], -best[1]):
                new = text[begin:end] if change.instead is None else change.instead.fill(values)
                best, seen = (begin, end, new), change.old
        if best is not None:
            self.seen[seen] += 1
        return best

    # --- before the rollout

    def _prepare(self, old: str, new: str) -> None:
        self._whole[old] = (old, new)
        marked = old in self.names
        pairs = [(TextTemplate.of_text(old), TextTemplate.of_text(new))]
        if "{{" in old + new or "}}" in old + new:
            was, now = TextTemplate.of_format(old), TextTemplate.of_format(new)
            if was is not None and now is not None and {*now.holes} <= {*was.holes}:
                pairs.append((was, now))
        if marked:
            self._whole.setdefault(new, (old, new))
            if old.strip() != old:  # frameworks trim
                pairs.append((TextTemplate.of_text(old.strip()), TextTemplate.of_text(new.strip())))
                self._whole.setdefault(old.strip(), (old, new.strip()))
        for was, now in pairs:
            if marked:
                self._add(_Change(old, now, None), marked)
            self._add(_Change(old, was, now), marked)

    def _add(self, change: _Change, marked: bool) -> None:
        if not change.wanted.can_match:
            return
        if change.wanted.holes or str(change.wanted) != change.old:
            self._templates.append(change)
        if marked:
            self._parts.append(change)

    def _refuse(self) -> None:
        for old, new in self.texts.items():
            refuse_unfit(f"candidate {self.id!r}: what replaces {self.describe(old)}", old, new)
            if new != old and new in self.texts and self.texts[new] != new:
                raise PromptError(
                    f"candidate {self.id!r}: what replaces {self.describe(old)} is word for word a text that it "
                    "replaces as well, so that the two could not be told apart: change one of them"
                )
        if strange := [name for old, name in self.names.items() if old not in self.texts]:
            raise PromptError(f"candidate {self.id!r} names {strange[0]!r} and has no text for it")
        if len(self._named) < len(self.names):
            raise PromptError(f"candidate {self.id!r} has two texts of one name")


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
