"""A spelling: the exact text in which a chat template writes tool calls, split at names and arguments.

Derived from what the template renders for one known call and for two, so that a forced call looks like those that the
model learned to write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spelling:
    """The text around calls that are written as a name followed by arguments as a JSON object."""

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
            return Spelling(before, between, after, text[len(begun) : -len(ended)], identity)
    return Spelling(before, between, after, None, identity)
