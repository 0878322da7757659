"""A grammar: the completions that a constraint allows, in llguidance's dialect of Lark.

`response_format` makes the answer JSON. Tools can still be called, in the exact text in which the model's chat template
writes calls. A `tool_choice` that forces a call allows calls only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lightning_embedded.constraints.json_schema import GrammarError, json_value
from lightning_embedded.constraints.keyword_arguments import keyword_rules, text_rules
from lightning_embedded.text.spelling import Spelling
from lightning_hub.trajectories.constraint import FREE_CHOICES


def grammar_of(constraint: str, spelling: Spelling | None, form: str, marks: Mapping[str, int]) -> str:
    """The grammar of a constraint. GrammarError if it is not supported.

    Args:
        constraint: As `lightning_hub.trajectories.constraint.constraint_of` has it.
        spelling: How the model writes calls.
        form: The name of the model's tool form, for messages.
        marks: Text -> id of special tokens, which a grammar refers to by id.
    """
    asked = json.loads(constraint)
    choice, rules = asked.get("tool_choice"), []
    formatted = asked.get("response_format") not in (None, {"type": "text"})
    free = choice in FREE_CHOICES
    if formatted and free:
        rules.append(f"answer: {json_value(*_schema(asked['response_format']))}")
    tools = asked.get("tools", [])
    if not free or (tools and choice != "none"):
        named = list(tools)
        if not free and choice != "required":
            named = [function for function in named if function["name"] == _name(choice)]
        if not named:
            raise GrammarError(f"tool_choice={json.dumps(choice)}: tools has no such function", "tool_choice")
        once = not asked.get("parallel_tool_calls", True) or (not free and choice != "required")
        param = "response_format" if free else "tool_choice"
        rules += _calls(named, _usable(spelling, form, param), marks, once=once)
    starts = [name for name in ("answer", "calls") if any(rule.startswith(f"{name}:") for rule in rules)]
    return "\n".join([f"start: {' | '.join(starts)}", *rules]) + "\n"


def _schema(form: Any) -> tuple[Any, bool]:
    """The JSON schema of a response format, and whether it is strict."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_object":
        return {"type": "object"}, True
    given = form.get("json_schema") if kind == "json_schema" else None
    if not isinstance(given, Mapping) or not isinstance(given.get("schema", {}), Mapping):
        raise GrammarError(
            f"response_format={json.dumps(form)[:80]}: expected {{'type': 'json_object'}} or {{'type': 'json_schema', "
            "'json_schema': {'name': ..., 'schema': {...}}}",
            "response_format",
        )
    return given.get("schema", {}), given.get("strict") is True


def _name(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise GrammarError(
            f"tool_choice={json.dumps(choice)[:80]}: expected 'auto', 'none', 'required' or {{'type': 'function', "
            "'function': {'name': ...}}",
            "tool_choice",
        )
    return name


def _usable(spelling: Spelling | None, form: str, param: str) -> Spelling:
    if spelling is not None:
        return spelling
    remedy = {
        "tool_choice": "use tool_choice 'auto'",
        "response_format": "leave tools out of requests with a response_format, or say tool_choice='none'",
    }[param]
    raise GrammarError(
        f"{param} is not supported where tools may be called: this model writes calls as {form!r}, and only calls "
        f"that its chat template prints can be part of a grammar; {remedy}",
        param,
    )


def _calls(named: list[Any], spelling: Spelling, marks: Mapping[str, int], *, once: bool) -> list[str]:
    """Rules for one call of these functions or, unless `once`, for several."""

    def text(written: str) -> str:
        return _text(written, spelling.identity, marks)

    again = "" if once or spelling.joint is None else f" ({text(spelling.joint)} call)*"
    if spelling.keywords is not None:
        each = [
            rule
            for place, function in enumerate(named)
            for rule in keyword_rules(f"call_{place}", function, spelling.keywords, text)
        ]
        each += text_rules(spelling.keywords, text)
    else:
        each = [
            f"call_{place}: {text(json.dumps(function['name'], ensure_ascii=False)[1:-1] + spelling.between)} "
            + json_value(function.get("parameters") or {"type": "object"}, function.get("strict") is True)
            for place, function in enumerate(named)
        ]
    return [
        f"calls: {text(spelling.before)} call{again} {text(spelling.after)}",
        "call: " + " | ".join(f"call_{place}" for place in range(len(named))),
        *each,
    ]


def _text(written: str, identity: str, marks: Mapping[str, int]) -> str:
    """Exactly this text, with special tokens by their ids, and any call id in place of `identity`."""
    special = "|".join(re.escape(mark) for mark in (identity, *sorted(marks, key=len, reverse=True)))
    pieces = []
    for piece in re.split(f"({special})", written):
        if piece == identity:
            pieces.append(f"/[a-zA-Z0-9]{{{len(identity)}}}/")
        elif piece in marks:
            pieces.append(f"<[{marks[piece]}]>")
        elif piece:
            pieces.append(json.dumps(piece, ensure_ascii=False))
    return " ".join(pieces) or '""'
