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

#: (rollout, id of the call, arguments in one form for every way to write them) -> as the model wrote them. Servers give
#: one id to several calls (some count from 0 in each conversation), so the id alone would mix rollouts.
_texts: OrderedDict[tuple[str, str, str], str] = OrderedDict()
_size = 0
_lock = threading.Lock()


def keep(rollout: str, call: str, arguments: str) -> None:
    """Remember the arguments that the model wrote for a call in this rollout."""
    global _size  # noqa: PLW0603 - the one memory of this process
    key = (rollout, call, _normalize(parse(arguments)))
    with _lock:
        _size += len(arguments) - len(_texts.pop(key, ""))
        _texts[key] = arguments
        while _size > LIMIT:
            _size -= len(_texts.popitem(last=False)[1])


def recall(rollout: str, call: str, given: Any) -> str:
    """`given` as JSON: as the model wrote it in this rollout, if it wrote it and the agent did not change it."""
    with _lock:
        text = _texts.get((rollout, call, _normalize(given)))
    return json.dumps(given, ensure_ascii=False) if text is None else text


def _normalize(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False, sort_keys=True)


def parse(arguments: str) -> dict[str, Any]:
    """Arguments as the object that Anthropic's protocol wants. A model's mistake is shown as one, not hidden."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}
