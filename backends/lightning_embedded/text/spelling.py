"""A spelling: the very text in which a chat template writes tool calls, cut where names and arguments stand.

Found in what the template renders for a call that is known, and for two of them; so a call that is forced looks like
one that the model was taught to write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spelling:
    """Of calls whose arguments are a JSON object, after the name."""

    before: str
    """Up to the first name."""
    between: str
    """From a name to its arguments."""
    after: str
    """Behind the last arguments."""
    joint: str | None
    """From arguments to the next name; None: this template writes one call at a time."""
    identity: str
    """The id that the template was given, which it may have written somewhere of these."""


def read_spelling(one: str, two: list[str], name: str, arguments: str, identity: str) -> Spelling | None:
    """The spelling of a text with one call, and of those among `two` that go on from it with the same call again.

    None if the arguments are not written as the JSON that was given, or come before the name.
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
