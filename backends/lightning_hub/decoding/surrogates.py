"""Half characters: JSON can contain one half of a surrogate pair, which neither UTF-8 nor msgpack can express."""

from __future__ import annotations

import re

#: One escape at a time, so that a backslash that is escaped itself begins none; a whole pair is one.
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def replace_lone_surrogates(text: bytes) -> bytes:
    r"""JSON, or lines of JSON, in which each lone `\ud800` to `\udfff` became the replacement character."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    return _ESCAPES.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], text)
