"""The chat format without transformers: the shipped template, rendered with jinja2 for speed.

`tests/spark` checks that the result equals that of `AutoTokenizer.apply_chat_template`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
"""A chat message in OpenAI's format."""


def template() -> str:
    """Source of the chat template."""
    return (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def render(messages: Sequence[Message], tools: Sequence[Message] = (), add_generation_prompt: bool = False) -> str:
    """The model's input text for these messages and tools, both in OpenAI's format."""
    return _compile_template().render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


def tool(name: str, *parameters: str) -> Message:
    """A function tool whose parameters are strings."""
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def tool_call(name: str, /, **arguments: str) -> Message:
    """An assistant message that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call", "type": "function", "function": function}],
    }


@cache
def _compile_template() -> Template:
    # Like transformers' environment, whose `tojson` neither escapes HTML nor sorts keys.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(template())
