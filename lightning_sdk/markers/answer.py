"""An answer as it is kept with its rollout: for people a text, for further scoring the value itself, as JSON."""

from __future__ import annotations

import json
from typing import Any

#: Characters of JSON in one answer, at most.
MAX_CHARACTERS = 1_000_000
#: Characters that people are shown.
PREVIEW_CHARACTERS = 2000


def preview(answer: Any) -> str:
    """A few lines of it for people."""
    try:
        text = str.__str__(answer if isinstance(answer, str) else "" if answer is None else repr(answer))[
            :PREVIEW_CHARACTERS
        ]
    except BaseException as raised:  # of the user's own class
        text = f"(a {type(answer).__name__} that cannot be shown: its repr raised {type(raised).__name__})"
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair has no place in a message


def to_json(answer: Any) -> tuple[str, str]:
    """The answer as JSON and '', or '' and why it cannot be kept so that it comes back as it was.

    Text, numbers, booleans, None, lists, and dicts whose keys are text; a tuple comes back as a list.
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
    """Something in an answer has no word in JSON."""


def _room_after(value: Any, left: int) -> int:
    """Of `left` characters about as many as are left after `value`; less than 0 as soon as there are none."""
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
                raise _NotJSON(f"a dict in it has the key {key!r:.40}, which is no text")
            if left < 0:
                break
            left = _room_after(item, left - 1 - len(key))
        return left
    kind = type(value)
    raise _NotJSON(f"it is or holds a {kind.__module__}.{kind.__qualname__}, for which JSON has no word")
