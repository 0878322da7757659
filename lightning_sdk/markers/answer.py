"""An answer as stored with its rollout: a text to show, and the value as JSON to score again."""

from __future__ import annotations

import json
from typing import Any

#: Characters of JSON in one answer, at most.
MAX_CHARACTERS = 1_000_000
#: Characters of an answer that are shown.
PREVIEW_CHARACTERS = 2000


def preview(answer: Any) -> str:
    """The beginning of the answer as text, to show."""
    try:
        text = str.__str__(answer if isinstance(answer, str) else "" if answer is None else repr(answer))[
            :PREVIEW_CHARACTERS
        ]
    except BaseException as raised:  # of the user's own class
        text = f"(a {type(answer).__name__} that cannot be shown: its repr raised {type(raised).__name__})"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no place in a message


def to_json(answer: Any) -> tuple[str, str]:
    """The answer as JSON and '', or '' and why it could not be restored from JSON as it was.

    Strings, numbers, booleans, None, lists, and dicts with string keys can be; a tuple comes back as a list.
    """
    try:
        left = _room_after(answer, MAX_CHARACTERS)
        text = json.dumps(answer) if left >= 0 else ""
    except (_NotJSON, ValueError) as reason:
        return "", str(reason)
    except RecursionError:
        return "", "it is nested too deeply"
    except BaseException as raised:  # of the user's own class
        return "", f"looking at it raised {type(raised).__name__}"
    return (
        (text, "") if text and len(text) <= MAX_CHARACTERS else ("", f"it is longer than {MAX_CHARACTERS:,} characters")
    )


class _NotJSON(Exception):
    """Something in an answer cannot be represented in JSON."""


def _room_after(value: Any, left: int) -> int:
    """About how many of `left` characters remain after `value`; negative once they are used up."""
    if value is None or isinstance(value, bool | int | float):
        return left - 1
    if isinstance(value, str):
        return left - len(value)
    if isinstance(value, list | tuple):
        for item in value:
            if left < 0:
                break
            left = _room_after(item, left - 1)
        return left
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _NotJSON(f"a dict in it has the key {key!r:.40}, which is not a string")
            if left < 0:
                break
            left = _room_after(item, left - 1 - len(key))
        return left
    kind = type(value)
    raise _NotJSON(f"it is or contains a {kind.__module__}.{kind.__qualname__}, which JSON cannot represent")
