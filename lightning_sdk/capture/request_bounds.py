"""The bounds of a request: the most tokens that a model may read and write for it, from its JSON body alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_REPLY_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens")
_CONFIGURATIONS = ("generationConfig", "generation_config", "inferenceConfig")
_COUNTS = ("n", "best_of", "candidateCount", "candidate_count")
_MODEL_IN_PATH = re.compile(r"/models?/([^/:]+)")
#: What a request refers to without saying it, so that nothing in the request says how long it is.
_REFERENCES = ("previous_response_id", "conversation")
_REFERRING = re.compile(rb'"(?:file_id|file_data|fileUri|file_uri)"\s*:|"url"\s*:\s*"https?:')
_TEMPLATE_TOKENS = 16
"""What chat templates add to a request beyond the JSON around its texts."""
_TOOL_TOKENS = 600
"""What providers tell a model about the use of tools, if a request has any."""


class RequestBounds(NamedTuple):
    """The most that one request can take."""

    model: str
    """As the request names it; '' if it does not."""
    input_tokens: int
    """No text has more tokens than bytes."""
    reply_tokens: int
    """Of all replies that it asks for; 0 if the request sets no limit."""
    replies: int = 1
    unbounded: str = ""
    """What in the request makes it impossible to say; '' if nothing does."""


def bound_request(path: str, body: bytes) -> RequestBounds:
    """The bounds of the request to `path` with this body."""
    named = _MODEL_IN_PATH.search(path)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return RequestBounds(named[1] if named else "", len(body), 0, 1, "a body that is not a JSON object")
    model = request.get("model")
    replies = max((each for name in _COUNTS for each in _numbers(request, name)), default=1)
    longest = max((each for name in _REPLY_LIMITS for each in _numbers(request, name)), default=0)
    extra = _TEMPLATE_TOKENS + (_TOOL_TOKENS if request.get("tools") or request.get("functions") else 0)
    return RequestBounds(
        model if isinstance(model, str) else named[1] if named else "",
        len(body) + extra,
        longest * replies,
        replies,
        _find_reference(request, body),
    )


def _numbers(request: Mapping[str, Any], name: str) -> Iterator[int]:
    for place in (request, *(request.get(each) for each in _CONFIGURATIONS)):
        if isinstance(place, dict) and type(value := place.get(name)) is int and value > 0:
            yield value


def _find_reference(request: Mapping[str, Any], body: bytes) -> str:
    if named := [name for name in _REFERENCES if request.get(name)]:
        return f"{named[0]!r}, whose length the request does not show"
    if found := _REFERRING.search(body):
        return f"a reference ({found[0].decode()}...), whose length the request does not show"
    return ""
