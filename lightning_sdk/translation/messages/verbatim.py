"""The text that a model wrote as a tool's arguments, kept until the agent sends the call back with the tool's result.

Anthropic's protocol has an object there, and an object written out again may differ in blanks from the sampled text.
The conversation would then no longer begin with the tokens that the model saw, and its turns could not be merged.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

#: Characters kept in all; the oldest go first.
LIMIT = 8_000_000

_texts: OrderedDict[str, str] = OrderedDict()
_size = 0
_lock = threading.Lock()


def keep(call: str, arguments: str) -> None:
    """Remember what the call with this id was given."""
    global _size  # noqa: PLW0603 - the one memory of this process
    with _lock:
        _size += len(arguments) - len(_texts.pop(call, ""))
        _texts[call] = arguments
        while _size > LIMIT:
            _size -= len(_texts.popitem(last=False)[1])


def recall(call: str, given: Any) -> str:
    """`given` as JSON: as the model wrote it, if it wrote it and the agent did not change it."""
    with _lock:
        text = _texts.get(call)
    if text is not None and parse(text) == given:
        return text
    return json.dumps(given, ensure_ascii=False)


def parse(arguments: str) -> dict[str, Any]:
    """Arguments as the object that Anthropic's protocol wants. A model's mistake is shown as one, not hidden."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}
