"""A spelling: the exact text in which a chat template writes tool calls, split at names and arguments.

Derived from what the template renders for known calls, so that a forced call looks like those that the model learned to
write.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lightning_embedded.text.keywords import Keywords, Strings


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """The text around calls that are written as a name followed by arguments."""

    before: str
    """Text before the first name."""
    between: str
    """Text between a name and its arguments."""
    after: str
    """Text after the last arguments."""
    joint: str | None
    """Text between arguments and the next name; None if the template writes only one call."""
    identity: str
    """The call id that the template was given, which may be part of these texts."""
    keywords: Keywords | None = None
    """How arguments are written one by one; None where they are one JSON object."""


def read_spelling(one: str, two: list[str], name: str, arguments: str, identity: str) -> Spelling | None:
    """The spelling, from the text of one call and candidates for the text of the same call twice.

    None if the arguments are not written as the given JSON, or come before the name.
    """
    before, found, rest = one.partition(name)
    between, there, after = rest.partition(arguments)
    if not found or not there:
        return None
    begun, ended = before + name + between + arguments, name + between + arguments + after
    for each in two:
        text = each[max(each.find(begun), 0) :]
        if text.startswith(begun) and text.endswith(ended) and len(text) >= len(begun) + len(ended):
            joint = text[len(begun) : -len(ended)]
            return Spelling(before=before, between=between, after=after, joint=joint, identity=identity)
    return Spelling(before=before, between=between, after=after, joint=None, identity=identity)


#: Renders one call with these arguments as text; None if the template cannot.
Write = Callable[[dict[str, Any]], str | None]
_TEXT = 'it\'s "so"\nand \\ so'
_NESTED = {"a": ["b", 1, {"c": None}], "d": True}


def read_keyword_spelling(write: Write, two: list[str], name: str, identity: str, close: str) -> Spelling | None:
    """The spelling of calls whose arguments are written one by one; None if they are not written so.

    Args:
        write: Renders a call of `name`.
        two: Candidates for the text of two calls with the arguments `PROBED`.
        close: The tag behind a call; '' if there is none.
    """
    one, bare = write(PROBED), write({})
    pieces = _split(one, [name, *_IN_ORDER])
    nothing = _split(bare, [name])
    if pieces is None or nothing is None or pieces[0] != nothing[0]:
        return None
    before, opening, begun, between, assign, rest = pieces
    quote = begun.removeprefix(assign)
    if not begun.startswith(assign) or quote not in ("", '"', "'") or not between.startswith(quote):
        return None
    between = between[len(quote) :]
    after = _suffix(rest, nothing[1])
    closing, none = rest.removesuffix(after), nothing[1].removesuffix(after)
    end = _prefix(between, closing)
    keywords = Keywords(
        opening=opening,
        assign=assign,
        end=end,
        joint=between[len(end) :],
        closing=closing[len(end) :],
        none=none,
        strings=Strings.QUOTED if quote else Strings.BARE,
        quote=quote,
        words=(),
        nested=frozenset(),
        python=opening == "(",
        reserved=tuple(text for text in (end.strip(), close) if text),
    )
    if not quote and not end.strip():
        return None  # nothing tells where a string ends
    joint = _joint(two, one or "", name, closing)
    found = Spelling(before=before, between="", after=after, joint=joint, identity=identity, keywords=keywords)
    return _with_values(found, write, name)


PROBED: dict[str, Any] = {"place": "a b", "number": 3}
_IN_ORDER = ["place", "a b", "number", "3"]


def _split(text: str | None, marks: list[str]) -> list[str] | None:
    """The texts around these marks, which come in this order."""
    pieces, rest = [], text or ""
    for mark in marks:
        piece, found, rest = rest.partition(mark)
        if not found:
            return None
        pieces.append(piece)
    return [*pieces, rest]


def _prefix(one: str, other: str) -> str:
    """What both texts begin with."""
    same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:same]


def _suffix(one: str, other: str) -> str:
    return _prefix(one[::-1], other[::-1])[::-1]


def _joint(two: list[str], one: str, name: str, closing: str) -> str | None:
    """Text between the end of a call and the next name; None if the template writes only one call."""
    head, _, tail = one.partition(name)
    last = tail.rpartition(_IN_ORDER[-1])[0] + _IN_ORDER[-1]
    for each in two:
        text = each[max(each.find(head + name + last), 0) :]
        begun, ended = head + name + last + closing, name + tail
        if text.startswith(begun) and text.endswith(ended) and len(text) >= len(begun) + len(ended):
            return text[len(begun) : -len(ended)]
    return None


def _with_values(spelling: Spelling, write: Write, name: str) -> Spelling:
    """The spelling with how each kind of value is written, which the template is asked for one by one."""
    keywords = spelling.keywords
    assert keywords is not None
    head = spelling.before + name + keywords.opening + "word" + keywords.assign
    tail = keywords.end + keywords.closing + spelling.after

    def value(given: Any) -> str | None:
        text = write({"word": given})
        whole = text is not None and text.startswith(head) and text.endswith(tail)
        return text[len(head) : -len(tail) or None] if whole and text is not None else None

    strings = Strings.JSON if value(_TEXT) == json.dumps(_TEXT) else keywords.strings
    words = tuple((word, text) for word in (True, False, None) if (text := value(word)) is not None)
    nested = frozenset(type(each) for each in (_NESTED, [_NESTED]) if value(each) == json.dumps(each))
    return replace(spelling, keywords=replace(keywords, strings=strings, words=words, nested=nested))
