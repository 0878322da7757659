"""Instructions: the texts of a request that tell the model how to behave, each with its place in the JSON.

One reading for every protocol, by the fields' names: chat completions, the Responses API, Anthropic's Messages API and
Google's `generateContent`. Pure functions: a request is never changed, and what is put into it makes a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Place = tuple[str | int, ...]
"""Keys and indices from the top of the request down to a text: ("messages", 0, "content")."""

SYSTEM, DEVELOPER, TOOL, USER = "system", "developer", "tool", "user"
_INSTRUCTING = (SYSTEM, DEVELOPER)
_TOP = ("instructions", "system", "system_instruction", "systemInstruction")
"""Fields whose whole content is an instruction: of Responses, of Anthropic, and of Google in both spellings."""
_CONVERSATIONS = ("messages", "input", "contents")
_DECLARATIONS = ("functionDeclarations", "function_declarations")


class Instruction(NamedTuple):
    """One text of a request."""

    place: Place
    kind: str
    """'system', 'developer', 'tool' for the description of a tool, or 'user' for what a user says."""
    text: str
    tool: str = ""
    """Name of the tool."""


def find_instructions(body: Mapping[str, Any]) -> list[Instruction]:
    """What the request tells the model to do: system and developer texts, and the descriptions of tools."""
    found: list[Instruction] = []
    for name in _TOP:
        if (value := body.get(name)) is not None:
            found += _texts_of(value, (name,), SYSTEM)
    for name in _CONVERSATIONS:
        turns = body.get(name)
        if isinstance(turns, list | tuple):
            for index, turn in enumerate(turns):
                if isinstance(turn, dict) and (role := turn.get("role")) in _INSTRUCTING:
                    found += _texts_of(turn.get("content"), (name, index, "content"), role)
    for name in ("tools", "functions"):
        if tools := body.get(name):
            found += _descriptions(tools, (name,))
    return found


def find_user_texts(body: Mapping[str, Any]) -> list[Instruction]:
    """What users say in the request, where a text that is marked may stand as well."""
    found: list[Instruction] = []
    for name in ("prompt", "input"):
        if isinstance(text := body.get(name), str):
            found.append(Instruction((name,), USER, text))
    for name in _CONVERSATIONS:
        turns = body.get(name)
        for index, turn in enumerate(turns if isinstance(turns, list | tuple) else ()):
            if isinstance(turn, dict) and turn.get("role") == USER:
                key = "parts" if name == "contents" else "content"
                found += _texts_of(turn.get(key), (name, index, key), USER)
    return found


def put_texts(body: Mapping[str, Any], texts: Mapping[Place, str]) -> dict[str, Any]:
    """A copy of the request with these texts in these places. Everything else is the same object as before."""
    new: dict[str, Any] = dict(body)
    copies: dict[Place, Any] = {(): new}
    for place, text in texts.items():
        at: Any = new
        for depth in range(1, len(place)):
            path = place[:depth]
            if path not in copies:
                value = at[place[depth - 1]]
                copies[path] = at[place[depth - 1]] = dict(value) if isinstance(value, dict) else list(value)
            at = copies[path]
        at[place[-1]] = text
    return new


def _texts_of(value: Any, place: Place, kind: str) -> Iterator[Instruction]:
    """The texts of a content: a string, a part, a list of them, or an object with `parts`."""
    if isinstance(value, str):
        yield Instruction(place, kind, value)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            if isinstance(part, str):
                yield Instruction((*place, index), kind, part)
            elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
                yield Instruction((*place, index, "text"), kind, text)
    elif isinstance(value, dict):
        if isinstance(text := value.get("text"), str):
            yield Instruction((*place, "text"), kind, text)
        if (parts := value.get("parts")) is not None:
            yield from _texts_of(parts, (*place, "parts"), kind)


def _descriptions(tools: Any, place: Place) -> Iterator[Instruction]:
    """The descriptions of tools, as each protocol nests them."""
    for index, tool in enumerate(tools if isinstance(tools, list | tuple) else ()):
        if not isinstance(tool, dict):
            continue
        at: Place = (*place, index)
        if isinstance(function := tool.get("function"), dict):
            tool, at = function, (*at, "function")  # noqa: PLW2901 - chat completions nest it
        if isinstance(text := tool.get("description"), str):
            yield Instruction((*at, "description"), TOOL, text, str(tool.get("name", "")))
        for name in _DECLARATIONS:
            if declared := tool.get(name):
                yield from _descriptions(declared, (*at, name))
