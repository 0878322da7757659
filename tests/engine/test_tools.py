"""Tool calls in a completion's text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_embedded.tools import ToolCall, ToolReader, split

CALL = '<tool_call>{"name": "f", "arguments": {"a":  [1, "}</x>"]}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("plain", "plain", []),
        ("", "", []),
        (CALL, None, [("f", '{"a":  [1, "}</x>"]}')]),
        ("Let me see. " + CALL, "Let me see. ", [("f", '{"a":  [1, "}</x>"]}')]),
        ("\n" + CALL + "\n" + CALL + "\n", None, [("f", '{"a":  [1, "}</x>"]}')] * 2),
        ('<tool_call>\n{"arguments": {}, "name": "g"}\n</tool_call>', None, [("g", "{}")]),
        ("<tool_call>{oops}</tool_call>", "<tool_call>{oops}</tool_call>", []),
        ('<tool_call>{"name": "f", "arguments": "x"}</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": "f", "arguments": {}} more</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": "f", "arguments": {}}',) * 2 + ([],),
        ("<tool_call>{bad}</tool_call>" + CALL, "<tool_call>{bad}</tool_call>", [("f", '{"a":  [1, "}</x>"]}')]),
        (" \n ", " \n ", []),
        ("a < b <tool", "a < b <tool", []),
    ],
)
def test_split(text: str, content: str | None, calls: list[tuple[str, str]]) -> None:
    """Well-formed calls come out with their arguments verbatim; all else stays content."""
    got, found = split(text)
    assert got == content
    assert [(call.name, call.arguments) for call in found] == calls


PIECES = st.sampled_from(["text", " ", "\n", "<", "<tool_call>", "</tool_call>", CALL, '{"name": "f"', "{", "}"])


@given(st.lists(PIECES, max_size=8), st.data())
def test_pieces_say_the_same_as_the_whole(pieces: list[str], data: st.DataObject) -> None:
    """However a completion is cut into deltas, content and calls are those of the whole text."""
    text = "".join(pieces)
    reader, found, at = ToolReader(), [], 0
    while at < len(text):
        end = data.draw(st.integers(at + 1, len(text)))
        found += reader.feed(text[at:end])
        at = end
    found += reader.feed("", last=True)
    content, calls = split(text)
    assert "".join(piece for piece in found if isinstance(piece, str)) == (content or "")
    assert [(c.name, c.arguments) for c in found if isinstance(c, ToolCall)] == [(c.name, c.arguments) for c in calls]
