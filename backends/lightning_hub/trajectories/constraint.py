"""A constraint: the part of a request that limits which tokens may be drawn, as text that is kept with the sampled
tokens.

Engine and learner make the same grammar from the same text, so the learner's distribution is the one that tokens were
drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

#: Values of `tool_choice` that leave it to the model whether it calls a tool.
FREE_CHOICES = (None, "none", "auto")

_encode = msgspec.json.Encoder().encode


def is_constrained(response_format: Any, tool_choice: Any) -> bool:
    """Whether a request with these fields asks for anything but free text."""
    formatted = response_format is not None and response_format != {"type": "text"}
    return formatted or tool_choice not in FREE_CHOICES


def constraint_of(body: Mapping[str, Any]) -> str:
    """The constraint of a request to chat completions, '' if its completion is free.

    JSON with what the grammar is made of, in the order in which the request has it: a schema's properties keep theirs.
    """
    form, choice = body.get("response_format"), body.get("tool_choice")
    if not is_constrained(form, choice):
        return ""
    kept: dict[str, Any] = {"response_format": form, "tool_choice": choice}
    if choice != "none" and body.get("tools"):
        kept["tools"] = [_outline(tool) for tool in body["tools"]]
        kept["parallel_tool_calls"] = body.get("parallel_tool_calls") is not False
    return _encode({name: value for name, value in kept.items() if value is not None}).decode()


def _outline(tool: Any) -> Any:
    """A tool without its description, which no grammar depends on."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        return tool
    return {name: function[name] for name in ("name", "parameters", "strict") if function.get(name) is not None}
