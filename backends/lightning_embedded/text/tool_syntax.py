"""Tool calls, and their parsers: JSON objects, Python call expressions and Qwen-Coder's tags."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_FUNCTION = re.compile(r"\s*<function=([^>\s]+)\s*>(.*)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>]+)>(.*?)</parameter>", re.DOTALL)
_PAIRS = {"{": "}", "[": "]", "(": ")"}
#: JSON's words in a Python expression.
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str
    """A JSON object, as text."""
    id: str = ""
    """Written by the model, or assigned by the reader."""


def bracket_end(text: str, start: int, quotes: str) -> int:
    """Index after the bracket that closes the one at `start`, ignoring strings in these quotes; -1 if it is missing.

    Mismatched brackets end it too: the result is then not a call.
    """
    special = re.compile(r"[\[\](){}" + quotes + r"]")
    waiting: list[str] = []
    at = start
    while found := special.search(text, at):
        sign, at = found[0], found.end()
        if sign in quotes:
            at = _string_end(text, at, sign)
            if at < 0:
                return -1
        elif sign in _PAIRS:
            waiting.append(_PAIRS[sign])
        elif sign != waiting.pop() or not waiting:
            return at
    return -1


def _string_end(text: str, at: int, quote: str) -> int:
    while (at := _search(text, at, quote)) >= 0:
        if text[at] == quote:
            return at + 1
        at += 2  # an escape
    return -1


def _search(text: str, at: int, quote: str) -> int:
    ends = [found for found in (text.find(quote, at), text.find("\\", at)) if found >= 0]
    return min(ends, default=-1)


# --- JSON


def json_calls(body: str, tools: Mapping[str, Any]) -> list[ToolCall] | None:
    """Parse `{"name": text, "arguments": {object}}`, or `"parameters"`, or a list of them."""
    body = body.strip()
    if not body.startswith("["):
        call = _json_call(body)
        return None if call is None else [call]
    calls, at = list[ToolCall](), _skip(body, 1)
    while True:
        try:
            _, end = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):
            return None
        call = _json_call(body[at:end])
        if call is None:
            return None
        calls.append(call)
        at = _skip(body, end)
        if body[at : at + 1] == "]":
            return calls if at + 1 == len(body) else None
        if body[at : at + 1] != ",":
            return None
        at = _skip(body, at + 1)


def _json_call(body: str) -> ToolCall | None:
    members = _members(body)
    arguments = (members or {}).get("arguments", (members or {}).get("parameters", ""))
    if members is None or "name" not in members or not arguments.startswith("{"):
        return None
    name, given = json.loads(members["name"]), json.loads(members.get("id", '""'))
    if not isinstance(name, str) or not name:
        return None
    return ToolCall(name, arguments, given if isinstance(given, str) else "")


def _members(body: str) -> dict[str, str] | None:
    """Key -> text of the value, for each member of a JSON object; None if it is not an object."""
    at = _skip(body, 0)
    if body[at : at + 1] != "{":
        return None
    members: dict[str, str] = {}
    while True:
        try:
            key, at = _DECODER.raw_decode(body, _skip(body, at + 1))
            at = _skip(body, at)
            start = _skip(body, at + 1)
            if not isinstance(key, str) or body[at : at + 1] != ":":
                return None
            _, end = _DECODER.raw_decode(body, start)
        except (ValueError, RecursionError):
            return None
        members[key] = body[start:end]
        at = _skip(body, end)
        if body[at : at + 1] == "}":
            return members if _skip(body, at + 1) == len(body) else None
        if body[at : at + 1] != ",":
            return None


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


# --- Python


def python_calls(body: str, tools: Mapping[str, Any]) -> list[ToolCall] | None:
    """Parse `[f(a=1), g()]`, `f(a=1)`, or one such call per line. Values are Python literals or JSON's words."""
    body = body.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(body).body
        if not all(isinstance(line, ast.Expr) for line in tree):
            return None
        found: list[ast.expr] = [line.value for line in tree if isinstance(line, ast.Expr)]
        if len(found) == 1 and isinstance(found[0], ast.List):
            found = found[0].elts
        return [_python_call(each) for each in found] or None
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _python_call(node: ast.expr) -> ToolCall:
    """Parse one call expression. ValueError if it is something else."""
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keywords")
    arguments = {each.arg: _literal(each.value) for each in node.keywords}
    if None in arguments:
        raise ValueError("keywords from a dict")
    return ToolCall(_dotted_name(node.func), json.dumps(arguments, ensure_ascii=False, allow_nan=False))


def _dotted_name(node: ast.expr) -> str:
    """ValueError unless it is a name, or names joined by dots."""
    inner = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    if not isinstance(inner, ast.Name):
        raise ValueError("not a name")
    return ast.unparse(node)


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node


def _literal(node: ast.expr) -> Any:
    return ast.literal_eval(_Words().visit(node))


# --- Qwen-Coder


def xml_calls(body: str, tools: Mapping[str, Any]) -> list[ToolCall] | None:
    """Parse `<function=NAME><parameter=KEY>value</parameter>...</function>`, with types from the tool's schema."""
    function = _FUNCTION.fullmatch(body)
    if function is None:
        return None
    name, inner = function[1], function[2]
    schema = tools.get(name)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    kinds = properties if isinstance(properties, Mapping) else {}
    arguments, at = dict[str, Any](), 0
    while found := _PARAMETER.match(inner, at):
        key = found[1].strip()
        arguments[key] = _convert(_strip_line_breaks(found[2]), kinds.get(key), schema)
        at = found.end()
    if inner[at:].strip():
        return None
    return [ToolCall(name, json.dumps(arguments, ensure_ascii=False))]


def _strip_line_breaks(value: str) -> str:
    """Remove the line break on either side that belongs to the tags."""
    return value.removeprefix("\n").removesuffix("\n")


#: Longest chain of references, or of choices within choices, that is followed.
MOST_NESTED = 8


def _convert(value: str, schema: Any, root: Any) -> Any:
    """The value with the type in the schema; text if there is none, or if it does not match."""
    kinds = kinds_of(schema, root)
    if value in ("None", "null") and ("null" in kinds or "string" not in kinds):
        return None
    if value in ("True", "False") and "boolean" in kinds:
        return value == "True"
    if kinds == {"string"}:
        return value
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if _KINDS.get(type(read), "") in kinds or (type(read) is int and "number" in kinds) else value


_KINDS = {
    str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array", type(None): "null",
}  # fmt: skip


def kinds_of(schema: Any, root: Any, depth: int = 0) -> set[str]:
    """The types that a value may have; 'string' if nothing is said."""
    schema = resolve_schema(schema, root)
    if not isinstance(schema, Mapping) or depth > MOST_NESTED:
        return {"string"}
    if "type" in schema:
        named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return {kind for kind in named if isinstance(kind, str)} or {"string"}
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            return {kind for each in schema[name] for kind in kinds_of(each, root, depth + 1)}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return {_KINDS.get(type(each), "string") for each in values} if isinstance(values, list) else {"string"}


def resolve_schema(schema: Any, root: Any) -> Any:
    """The schema that a `$ref` into `root` stands for; any other as it is."""
    for _ in range(MOST_NESTED):
        path = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(path, str) or not path.startswith("#/"):
            break
        schema = root
        for name in path[2:].split("/"):
            schema = schema.get(name) if isinstance(schema, Mapping) else None
    return schema
