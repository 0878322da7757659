"""A template: a text as static parts with holes between them, matched against what a request carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_sdk.prompts.placeholders import TOKEN, format_parts

FEWEST_STATIC = 8
"""Characters, without white space, that a text needs to be looked for inside others: a shorter one is everywhere."""


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """Static parts, and between each two of them the placeholder of a hole."""

    parts: tuple[str, ...]
    """One more than holes."""
    holes: tuple[str, ...]

    @classmethod
    def of_text(cls, text: str) -> TextTemplate:
        """The template of a text, whose placeholders are its holes and everything else is meant as it stands."""
        return cls(tuple(TOKEN.split(text)), tuple(TOKEN.findall(text)))

    @classmethod
    def of_format(cls, text: str) -> TextTemplate | None:
        """The template of a text that goes through `str.format`, where `{{` is a brace; None if it cannot."""
        pieces = format_parts(text)
        if pieces is None:
            return None
        parts, holes, static = list[str](), list[str](), ""
        for literal, field in pieces:
            static += literal
            if field:
                parts.append(static)
                holes.append(field)
                static = ""
        return cls((*parts, static), tuple(holes))

    @property
    def can_match(self) -> bool:
        """Whether it says enough to be told from other texts, and where each of its holes ends."""
        return len("".join("".join(self.parts).split())) >= FEWEST_STATIC and all(self.parts[1:-1])

    def match(self, text: str) -> dict[str, str] | None:
        """What stands in the holes of `text`; None if it is not of this template. Each hole ends as early as it can.

        Takes time in proportion to the text, whatever it holds.
        """
        first, last = self.parts[0], self.parts[-1]
        if not self.holes:
            return {} if text == first else None
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return None
        return self._read(text, len(first), len(text) - len(last))

    def search(self, text: str, start: int = 0) -> tuple[int, int, dict[str, str]] | None:
        """Where in a longer text, from `start` on, it begins and ends, and what stands in its holes.

        None if it is not there, or if it begins or ends with a hole, which nothing bounds in a longer text.
        """
        first, last = self.parts[0], self.parts[-1]
        if not first or not last or (begin := text.find(first, start)) < 0:
            return None
        at = begin + len(first)
        if not self.holes:
            return begin, at, {}
        for part in self.parts[1:-1]:
            if (found := text.find(part, at)) < 0:
                return None
            at = found + len(part)
        end = text.find(last, at)
        values = None if end < 0 else self._read(text, begin + len(first), end)
        return None if values is None else (begin, end + len(last), values)

    def _read(self, text: str, at: int, end: int) -> dict[str, str] | None:
        values: dict[str, str] = {}
        for hole, part in zip(self.holes, (*self.parts[1:-1], None), strict=True):
            until = end if part is None else text.find(part, at, end)
            if until < 0 or values.setdefault(hole, text[at:until]) != text[at:until]:
                return None
            at = until + len(part or "")
        return values

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with `values` in its holes. KeyError for one that is not among them."""
        filled: Sequence[str] = [values[hole] for hole in self.holes]
        pieces = [piece for pair in zip(self.parts, filled, strict=False) for piece in pair]
        return "".join((*pieces, self.parts[-1]))

    def __str__(self) -> str:
        return self.fill({hole: hole for hole in self.holes})
