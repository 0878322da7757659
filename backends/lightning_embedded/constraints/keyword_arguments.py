"""Rules for arguments that are written one by one, in the order of their schema: `a=1, b=2`, or each in tags.

Only arguments that the schema names can be written, and each value as the chat template prints it, so that a prompt
with the call continues what was sampled.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_embedded.constraints.json_schema import GrammarError, json_value
from lightning_embedded.text.keywords import Keywords, Strings
from lightning_embedded.text.tool_syntax import MOST_NESTED, kinds_of, resolve_schema

#: Keywords of a schema that limit no value.
_TELLING = {"type", "title", "description", "default", "examples", "$schema", "$defs", "definitions", "$ref"}
_OF_ARGUMENTS = _TELLING | {"properties", "required", "additionalProperties"}
_KINDS = ("string", "integer", "number", "boolean", "null", "array", "object")
_NESTED: dict[str, type] = {"array": list, "object": dict}
_WORDS: dict[str, tuple[Any, ...]] = {"boolean": (True, False), "null": (None,)}

#: Text as a piece of a rule.
Literal = Callable[[str], str]


def keyword_rules(call: str, function: Mapping[str, Any], keywords: Keywords, literal: Literal) -> list[str]:
    """The rule `call` for one call of a function, and those that it needs. GrammarError if it cannot be written.

    Arguments come in the schema's order, and only one that is not required may be left out.
    """
    name, schema = str(function["name"]), function.get("parameters") or {}
    properties = schema.get("properties") or {} if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        raise GrammarError(f"function {name}: its parameters are not an object with properties", "tools")
    strict = function.get("strict") is True
    _refuse_unknown(schema, _OF_ARGUMENTS, strict, f"function {name}")
    _check_names(name, properties, keywords)
    rules = [f"{call}: {literal(name)} {call}_first_0"]
    for place, (key, each) in enumerate(properties.items()):
        values = _Values(f"function {name}: argument {key!r}", schema, strict, keywords, literal)
        rules.append(f"{call}_value_{place}: {literal(key + keywords.assign)} ({' | '.join(values.ways(each))})")
        for state, begin in (("first", keywords.opening), ("more", keywords.joint)):
            ways = [f"{literal(begin)} {call}_value_{place} {call}_more_{place + 1}"]
            ways += [] if key in (schema.get("required") or ()) else [f"{call}_{state}_{place + 1}"]
            rules.append(f"{call}_{state}_{place}: {' | '.join(ways)}")
    ends = (("first", keywords.none), ("more", keywords.closing))
    return rules + [f"{call}_{state}_{len(properties)}: {literal(end)}" for state, end in ends]


def text_rules(keywords: Keywords, literal: Literal) -> list[str]:
    """The rules of strings that are written without escapes, with what ends a value."""
    if keywords.strings is Strings.BARE:
        reserved = "|".join(re.escape(text).replace("/", r"\/") for text in keywords.reserved)
        terminal = rf"/(?s:.*)/ & ~/(?s:.*)({reserved})(?s:.*)/"
        return [f"text[suffix={json.dumps(keywords.end)}]: TEXT", f"TEXT: {terminal}"]
    terminal = rf"/{keywords.quote}[^{keywords.quote}\\\x00-\x1f]*{keywords.quote}/"
    return [f"text: TEXT {literal(keywords.end)}", f"TEXT: {terminal}"]


class _Values:
    """The ways to write one argument's value, each with the text that ends it."""

    def __init__(self, where: str, root: Any, strict: bool, keywords: Keywords, literal: Literal) -> None:
        self._where, self._root, self._strict = where, root, strict
        self._keywords, self._literal, self._end = keywords, literal, literal(keywords.end)

    def ways(self, schema: Any, depth: int = 0) -> list[str]:
        """GrammarError for a value that the form of calls does not have."""
        if depth > MOST_NESTED:
            raise GrammarError(f"{self._where}: its schema refers to itself", "tools")
        schema = resolve_schema(schema, self._root)
        schema = schema if isinstance(schema, Mapping) else {}
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            return [way for choice in choices for way in self.ways(choice, depth + 1)]
        if "enum" in schema or "const" in schema:
            return [self._literal(self._text_of(each) + self._keywords.end) for each in _choices_of(schema)]
        kinds = kinds_of(schema, self._root) if "type" in schema or self._keywords.strings is Strings.BARE else _KINDS
        return [way for kind in _KINDS if kind in kinds for way in self._of_kind(kind, schema)]

    def _of_kind(self, kind: str, schema: Mapping[str, Any]) -> Iterator[str]:
        if kind in _WORDS:
            yield from (self._literal(self._text_of(word) + self._keywords.end) for word in _WORDS[kind])
        elif kind == "string" and self._keywords.strings is not Strings.JSON:
            _refuse_unknown(schema, _TELLING, self._strict, self._where)
            yield "text"
        else:
            self._refuse_unwritten(_NESTED.get(kind))
            kept = {name: schema[name] for name in schema if name not in ("anyOf", "oneOf")}
            shared = {name: self._root[name] for name in ("$defs", "definitions") if name in self._root}
            value = json_value({**shared, **kept, "type": kind}, self._strict, spaced=True)
            yield f"{value} {self._end}".rstrip()

    def _text_of(self, value: Any) -> str:
        """The text of one value."""
        if isinstance(value, bool) or value is None:
            found = next((text for word, text in self._keywords.words if word is value), None)
            if found is None:
                raise self._unwritten(json.dumps(value))
            return found
        if isinstance(value, str) and self._keywords.strings is not Strings.JSON:
            quote = self._keywords.quote
            if any(text in value for text in (quote and "\\", quote, *self._keywords.reserved) if text):
                raise self._unwritten(json.dumps(value))
            return quote + value + quote
        self._refuse_unwritten(type(value))
        return json.dumps(value, ensure_ascii=False)

    def _refuse_unwritten(self, kind: type | None) -> None:
        if kind in (list, dict) and kind not in self._keywords.nested:
            raise self._unwritten("a list" if kind is list else "an object")

    def _unwritten(self, what: str) -> GrammarError:
        return GrammarError(
            f"{self._where} may be {what}, which this model's chat template does not write in a tool call; use "
            "tool_choice 'auto'",
            "tools",
        )


def _choices_of(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema["enum"])


def _check_names(function: str, keys: Mapping[str, Any], keywords: Keywords) -> None:
    """GrammarError for a name that the form of calls cannot hold."""
    for name in (*function.split("."), *keys):
        fits = bool(name) and not re.search(r"[>\s]", name)
        if keywords.python:
            fits = name.isidentifier() and not keyword.iskeyword(name)
        if not fits:
            raise GrammarError(
                f"function {function}: {name!r} cannot stand in this model's tool calls; rename it, or use tool_choice "
                "'auto'",
                "tools",
            )


def _refuse_unknown(schema: Mapping[str, Any], known: set[str], strict: bool, where: str) -> None:
    """With `strict`, what cannot be kept is an error; otherwise it is ignored, as in OpenAI's API."""
    unknown = sorted(set(schema) - known)
    if strict and unknown:
        raise GrammarError(
            f"{where}: {unknown[0]} is not supported where arguments are not written as JSON; leave strict out", "tools"
        )
