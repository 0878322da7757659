"""Instructions are found in requests of every protocol, and putting others in changes nothing else."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sdk.prompts.instructions import find_instructions, find_user_texts, put_texts
from tests.prompts.requests_of import requests

TOOL = {"name": "look", "description": "Looks it up.", "parameters": {"type": "object", "description": "not this"}}
CACHED = {"type": "text", "text": "You write.", "cache_control": {"type": "ephemeral"}}
SHAPES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"messages": [{"role": "system", "content": "A"}, {"role": "user", "content": "B"}]}, [("system", "A")]),
    ({"messages": [{"role": "developer", "content": [{"type": "text", "text": "A"}]}]}, [("developer", "A")]),
    ({"messages": [{"role": "user", "content": "B"}, {"role": "system", "content": "late"}]}, [("system", "late")]),
    ({"instructions": "A", "input": "B"}, [("system", "A")]),
    (
        {"instructions": None, "input": [{"role": "developer", "content": [{"type": "input_text", "text": "A"}]}]},
        [("developer", "A")],
    ),
    ({"system": "A", "messages": [{"role": "user", "content": "B"}]}, [("system", "A")]),
    ({"system": [CACHED, {"type": "text", "text": "Be brief."}]}, [("system", "You write."), ("system", "Be brief.")]),
    (
        {"systemInstruction": {"parts": [{"text": "A"}]}, "contents": [{"role": "user", "parts": [{"text": "B"}]}]},
        [("system", "A")],
    ),
    ({"system_instruction": {"parts": {"text": "A"}}}, [("system", "A")]),
    ({"messages": [], "tools": [{"type": "function", "function": TOOL}]}, [("tool", "Looks it up.")]),
    ({"input": "B", "tools": [{"type": "function", **TOOL}]}, [("tool", "Looks it up.")]),
    ({"contents": [], "tools": [{"functionDeclarations": [TOOL]}]}, [("tool", "Looks it up.")]),
    ({"messages": [], "functions": [TOOL]}, [("tool", "Looks it up.")]),
]


@pytest.mark.parametrize(("body", "texts"), SHAPES)
def test_instructions_of_every_protocol(body: dict[str, Any], texts: list[tuple[str, str]]) -> None:
    """System, developer, instructions, system_instruction, in strings and parts, and descriptions of tools."""
    found = find_instructions(body)
    assert [(each.kind, each.text) for each in found] == texts
    assert all(each.tool == ("look" if each.kind == "tool" else "") for each in found)
    for each in found:
        assert at(body, each.place) == each.text


def test_users_texts_are_apart() -> None:
    """A user's message is not an instruction, but it is searched for marked texts."""
    parts = [{"type": "text", "text": "B"}, {"type": "image_url", "image_url": {}}]
    chat = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "C"}]}
    assert find_instructions(chat) == []
    assert [each.text for each in find_user_texts(chat)] == ["B"]
    assert [each.text for each in find_user_texts({"input": "B", "instructions": "A"})] == ["B"]
    assert [each.text for each in find_user_texts({"contents": [{"role": "user", "parts": [{"text": "B"}]}]})] == ["B"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None, "tools": None, "system": None},
        {"messages": "text", "input": 3, "tools": {"a": 1}, "system": 5, "functions": "f"},
        {"messages": [None, 1, "x", {"role": ["system"]}, {"role": "system"}, {"role": "system", "content": {"a": 1}}]},
        {"tools": [None, {"function": None}, {"function": {"description": 3}}, {"functionDeclarations": "x"}]},
        {"system": [None, {"text": 3}, []], "contents": [{"role": "user"}]},
    ],
)
def test_other_shapes_hold_no_text(body: dict[str, Any]) -> None:
    """A request that is not as any protocol has it is somebody else's to refuse."""
    assert find_instructions(body) == []


@given(requests(), st.data())
def test_only_the_named_places_change(body: dict[str, Any], data: st.DataObject) -> None:
    """Texts come where they are put, everything else is equal, and the request itself is what it was."""
    before = copy.deepcopy(body)
    found = [*find_instructions(body), *find_user_texts(body)]
    chosen = data.draw(st.lists(st.sampled_from(found), unique=True)) if found else []
    new = put_texts(body, {each.place: f"new {number}" for number, each in enumerate(chosen)})
    assert body == before and json.dumps(body) == json.dumps(before)
    for number, each in enumerate(chosen):
        assert at(new, each.place) == f"new {number}"
    assert put_texts(new, {each.place: each.text for each in chosen}) == before


def at(body: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        body = body[key]
    return body
