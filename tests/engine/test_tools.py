"""Tool calls in a completion's text, in the form that the chat template prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_embedded.text.chat_template import Template
from lightning_embedded.text.tool_calls import ToolReader
from lightning_embedded.text.tool_format import ToolFormat
from lightning_embedded.text.tool_forms import FORMS as KNOWN
from lightning_embedded.text.tool_syntax import ToolCall
from lightning_sdk.errors import ModelError
from tests.engine.tool_templates import FORMS, SILENT, TEMPLATES, UNKNOWN

ENDS = ("<|im_end|>", "<|eot_id|>", "</s>")
CALL = '<tool_call>{"name": "f", "arguments": {"a":  [1, "}</x>"]}}</tool_call>'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "parts": {"type": "array"},
        "more": {"type": "object"},
        "maybe": {"type": ["string", "null"]},
    },
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Do.", "parameters": SCHEMA}}
    for name in ("f", "find_it", "g.h")
]


def tool_format(source: str) -> ToolFormat:
    return ToolFormat(Template(source, {"bos_token": "<s>", "eos_token": "</s>"}), ENDS)


FORMATS = {name: tool_format(source) for name, source in TEMPLATES.items()}


def reader_named(form: str) -> ToolReader:
    """A reader of the form of this name, for tools f, find_it and g.h."""
    return ToolReader(next(each for each in KNOWN if each.name == form), dict.fromkeys(("f", "find_it", "g.h"), SCHEMA))


def split(text: str, form: str = "hermes") -> tuple[str | None, list[tuple[str, str]]]:
    content, calls = reader_named(form).split(text)
    return content, [(call.name, call.arguments) for call in calls]


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
    assert split(text) == (content, calls)


XML = "<tool_call>\n<function=f>\n<parameter=text>\n12\n</parameter>\n<parameter=count>\n12\n</parameter>\n</function>"


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        ("llama-3", '{"name": "f", "parameters": {"a":  1}}', None, [("f", '{"a":  1}')]),
        ("llama-3", '<|python_tag|>{"name": "f", "parameters": {}}', None, [("f", "{}")]),
        ("llama-3", '{"name": "f", "parameters": {}}; {"name": "find_it", "arguments": {"a": "}"}}', None,
         [("f", "{}"), ("find_it", '{"a": "}"}')]),
        ("llama-3", '{"name": "f", "parameters": {}} is what I say', " is what I say", [("f", "{}")]),
        ("llama-3", '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
        ("llama-3", '{"answer": 42}', '{"answer": 42}', []),
        ("llama-3", 'It is {"name": "f", "parameters": {}}', 'It is {"name": "f", "parameters": {}}', []),
        ("llama-3", '<|python_tag|>brave_search.call(query="x")', '<|python_tag|>brave_search.call(query="x")', []),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a":  1}, "id": "abc123XYZ"}]</s>'[:-4], None,
         [("f", '{"a":  1}')]),
        ("mistral", "Wait.[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]find_it[CALL_ID]abcdefghi[ARGS]{\"a\":  1}", "Wait.",
         [("f", "{}"), ("find_it", '{"a":  1}')]),
        ("mistral", '[TOOL_CALLS]f{"a": 1}', None, [("f", '{"a": 1}')]),
        ("mistral", "[TOOL_CALLS] [{}]", "[TOOL_CALLS] [{}]", []),
        ("mistral", "[TOOL_CALLS]f\nno", "[TOOL_CALLS]f\nno", []),
        ("mistral", "[TOOL_CALLS]" + "f" * 400, "[TOOL_CALLS]" + "f" * 400, []),
        ("qwen-coder", XML + "\n</tool_call>", None, [("f", '{"text": "12", "count": 12}')]),
        ("qwen-coder", "<tool_call><function=f></function></tool_call>", None, [("f", "{}")]),
        ("qwen-coder", "<tool_call><function=f>stray</function></tool_call>",
         "<tool_call><function=f>stray</function></tool_call>", []),
        ("qwen-coder", XML, XML, []),
        ("pythonic", "[f(count=1, text='a, [b]'), find_it()]", None,
         [("f", '{"count": 1, "text": "a, [b]"}'), ("find_it", "{}")]),
        ("pythonic", '[g.h(sure=true, more={"a": null})]', None, [("g.h", '{"sure": true, "more": {"a": null}}')]),
        ("pythonic", "[1, 2, 3]", "[1, 2, 3]", []),
        ("pythonic", "[f(1)]", "[f(1)]", []),
        ("pythonic", "[f(count=os.system('x'))]", "[f(count=os.system('x'))]", []),
        ("pythonic", "[unknown(count=1)]", "[unknown(count=1)]", []),
        ("pythonic", "[f(**{'a': 1})]", "[f(**{'a': 1})]", []),
        ("pythonic in <function_calls>", "<function_calls>\nf(count=1)\nfind_it()\n</function_calls>", None,
         [("f", '{"count": 1}'), ("find_it", "{}")]),
    ],
)  # fmt: skip
def test_every_form(form: str, text: str, content: str | None, calls: list[tuple[str, str]]) -> None:
    """What is a call in each form, and what stays text."""
    assert split(text, form) == (content, calls)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_form_is_what_the_template_prints(name: str) -> None:
    """No name of a model says it, but a call that was rendered and read again."""
    found = FORMATS[name]
    assert (found.name, found.is_shown, found.short_ids) == (FORMS[name], True, name in MISTRALS)


MISTRALS = ("mistral", "mistral args", "devstral")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<>\x00\r", exclude_categories=["Cs", "Cc"]))
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS.filter(lambda text: text == text.strip("\n") and text not in ("None", "null")),
        "count": st.integers(-1000, 1000),
        "share": st.floats(-10, 10),
        "sure": st.booleans(),
        "parts": st.lists(TEXTS | st.integers(0, 9), max_size=3),
        "more": st.dictionaries(TEXTS, TEXTS, max_size=2),
        "maybe": st.none(),
    },
)


@given(
    st.sampled_from(sorted(TEMPLATES)),
    st.lists(st.tuples(st.sampled_from(["f", "find_it"]), VALUES), min_size=1, max_size=3),
    st.data(),
)
def test_a_rendered_call_is_read_back(name: str, made: list[tuple[str, Any]], data: st.DataObject) -> None:
    """Whatever a template of each family prints, cut into deltas anywhere, comes back with equal arguments."""
    made = made[:1] if name == "llama" else made
    calls = [
        {"id": f"abcdefgh{place}", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
        for place, (tool, arguments) in enumerate(made)
    ]
    template = Template(TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"})
    question = {"role": "user", "content": "Which way?"}
    begun = template.render([question], TOOLS)
    whole = template.render(
        [question, {"role": "assistant", "content": "", "tool_calls": calls}], TOOLS, {"add_generation_prompt": False}
    )
    said = whole.removeprefix(begun)
    for end in ENDS:
        said = said.partition(end)[0]
    reader, found = FORMATS[name].reader(TOOLS, "m"), []
    for piece in cut(said, data):
        found += reader.feed(piece)
    found += reader.feed("", last=True)
    read = [each for each in found if isinstance(each, ToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in read] == made
    if name in ("mistral", "mistral args"):
        assert [call.id for call in read] == [call["id"] for call in calls]
    assert len({call.id for call in read}) == len(read) and all(call.id for call in read)


def cut(text: str, data: st.DataObject) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = data.draw(st.integers(at + 1, len(text)))
        yield text[at:end]
        at = end


PIECES = st.sampled_from([
    "text", " ", "\n", "<", "<tool_call>", "</tool_call>", CALL, '{"name": "f"', "{", "}", "[", "]", "(", ")", "'", '"',
    "\\", "[TOOL_CALLS]", "[ARGS]", "f", '{"name": "f", "parameters": {}}', "; ", "<|python_tag|>", "[f(count=1)]",
    "=1", "<function=f>", "</function>", "<parameter=text>", "</parameter>", "<function_calls>", "</function_calls>",
    ",",
])  # fmt: skip


@given(st.sampled_from([form.name for form in KNOWN]), st.lists(PIECES, max_size=8), st.data())
def test_pieces_say_the_same_as_the_whole(form: str, pieces: list[str], data: st.DataObject) -> None:
    """However a completion is cut into deltas, content and calls are those of the whole text, and nothing is lost."""
    text = "".join(pieces)
    reader, found = reader_named(form), []
    for piece in cut(text, data):
        found += reader.feed(piece)
    found += reader.feed("", last=True)
    content, calls = split(text, form)
    assert "".join(piece for piece in found if isinstance(piece, str)) == (content or "")
    assert [(c.name, c.arguments) for c in found if isinstance(c, ToolCall)] == calls
    if not calls:
        assert content == text


@given(st.text(max_size=60), st.sampled_from(sorted(TEMPLATES)))
def test_any_text_is_read_without_an_error(text: str, name: str) -> None:
    """A model may say anything."""
    FORMATS[name].reader(TOOLS, "m").split(text)


def test_what_cannot_be_offered_is_refused_by_name() -> None:
    """A template that prints no tools, and one whose calls nothing here reads; each says what to do."""
    with pytest.raises(ModelError, match="the chat template of tiny does not show tools to the model"):
        tool_format(SILENT).reader(TOOLS, "tiny")
    with pytest.raises(ModelError, match=r"chat template of tiny writes a tool call as .*<<call.*this engine reads"):
        tool_format(UNKNOWN).reader(TOOLS, "tiny")
    assert tool_format(SILENT).name == "none: the chat template does not show tools"


def test_a_template_that_prints_no_calls_is_read_by_what_it_tells_the_model() -> None:
    """The form is in the instructions then."""
    source = TEMPLATES["hermes"].replace("message.tool_calls or []", "[]")
    assert tool_format(source).name == "hermes"
    assert tool_format(source.replace("<tool_call>", "<x>")).name == "none: the chat template's form is not known"


def test_arguments_inside_of_a_function_are_printed_as_they_were_written() -> None:
    """Mistral's template prints the function as a whole: odd spacing in what was sampled survives there too."""
    odd = '{"text":   "2 +\\u0020 2" }'
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": odd}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    rendered = Template(TEMPLATES["mistral"], {"bos_token": "", "eos_token": "</s>"}).render(messages, None)
    assert rendered.endswith('[TOOL_CALLS] [{"name": "f", "arguments": ' + odd + ', "id": "abcdefghi"}]</s>')
