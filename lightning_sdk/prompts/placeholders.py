"""Placeholders: the parts of a text that the user's code fills in, and that any other text in its place has to keep."""

from __future__ import annotations

import re
from collections import Counter
from string import Formatter

from lightning_sdk.errors import PromptError

#: `{name}` as in `str.format`, and `{{ name }}` as in template languages. JSON in a prompt is neither.
TOKEN = re.compile(
    r"\{\{\s*[A-Za-z_][\w.\[\]]*\s*(?:\|[^{}]*)?\}\}"
    r"|\{[A-Za-z_]\w*(?:\.\w+|\[\w+\])*(?:![rsa])?(?::[^{}]*)?\}"
)
SHORTEST_LIMIT = 8_000
"""Characters that every text may have, however short the one that it replaces."""
LIMIT_FACTOR = 4
"""How many times as long as the text that it replaces a text may be."""


def placeholders(text: str) -> tuple[str, ...]:
    """The placeholders of a text as they are written, each once, in order: ('{topic}', '{{ user.name }}')."""
    return tuple(dict.fromkeys(TOKEN.findall(text)))


def longest_allowed(default: str) -> int:
    """How many characters a text in place of `default` may have."""
    return max(SHORTEST_LIMIT, LIMIT_FACTOR * len(default))


def refuse_unfit(what: str, default: str, text: str, *, limit: int | None = None) -> None:
    """Refuse a text that cannot stand in the place of `default`. Nothing is repaired.

    Args:
        what: Names the text in the message, such as "candidate 'c3': 'writer.system'".
        limit: Characters that it may have; `longest_allowed(default)` if not given.

    Raises:
        PromptError: it is empty, too long, lacks a placeholder of `default`, has one that `default` does not have, or
            breaks the `str.format` that `default` goes through.
    """
    limit = longest_allowed(default) if limit is None else limit
    if not text.strip():
        raise PromptError(f"{what} is empty: a text that replaces a prompt must say something")
    if len(text) > limit:
        raise PromptError(f"{what} has {len(text):,} characters, and {limit:,} are allowed: make it shorter")
    wanted, given = placeholders(default), placeholders(text)
    if lost := [each for each in wanted if each not in given]:
        raise PromptError(f"{what} leaves out {', '.join(lost)}, which the agent fills in: keep each placeholder")
    if unknown := [each for each in given if each not in wanted]:
        allowed = f"only {', '.join(wanted)}" if wanted else "nothing"
        raise PromptError(f"{what} has {', '.join(unknown)}, but the agent fills in {allowed}: take it out")
    _refuse_broken_format(what, default, text)


def _refuse_broken_format(what: str, default: str, text: str) -> None:
    """PromptError where `default.format(...)` works and `text.format(...)` would raise or lack something."""
    wanted = format_fields(default)
    if not wanted:
        return
    given = format_fields(text)
    if given is None or set(given) != set(wanted):
        raise PromptError(
            f"{what} breaks str.format, which the text that it replaces is written for: write {{{{ and }}}} for "
            f"braces that are meant literally, and only {', '.join(dict.fromkeys(wanted))} for what is filled in"
        )


def format_fields(text: str) -> Counter[str] | None:
    """The fields of a text as `str.format` reads it; None if it cannot be formatted with names alone."""
    parts = format_parts(text)
    return None if parts is None else Counter(field for _, field in parts if field)


def format_parts(text: str) -> list[tuple[str, str]] | None:
    """Each piece of literal text with the field after it, '' where none comes, as `str.format` reads them.

    None if it cannot be formatted with names alone.
    """
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        return None
    parts: list[tuple[str, str]] = []
    for literal, name, spec, conversion in parsed:
        if name is None:
            parts.append((literal, ""))
            continue
        field = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
        if not TOKEN.fullmatch(field):
            return None
        parts.append((literal, field))
    return parts
