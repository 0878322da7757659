"""The forms in which models write tool calls, and their parsers.

A form finds where something that looks like a call begins in growing text, and takes it once it is complete. Whether it
is a call depends only on the text that was taken, so streams and complete replies are parsed alike. JSON arguments keep
their sampled text, so that a template that prints them renders the same completion again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lightning_embedded.text.growing_text import partial
from lightning_embedded.text.tool_syntax import ToolCall, bracket_end, json_calls, python_calls, xml_calls


class Taken(NamedTuple):
    """A piece of text that looked like calls."""

    calls: list[ToolCall]
    """Empty if it is not a call, and stays text."""
    length: int
    """In characters."""


class Form(Protocol):
    """How a family of models writes calls."""

    @property
    def name(self) -> str: ...

    @property
    def hints(self) -> tuple[str, ...]:
        """Texts that are all in a prompt that describes this form, for templates that do not print calls."""
        ...

    def begins(self, text: str, *, alone: bool, more: bool) -> tuple[int, bool]:
        """Where the next call begins, and True; or how much is certainly content, and False.

        `alone`: nothing but white space and calls came before; `more`: calls did.
        """
        ...

    def take(self, text: str, tools: Mapping[str, Any]) -> Taken | None:
        """Take what `text` begins with. None until its end has arrived."""
        ...


#: Parses the text between tags or brackets; None if it contains no valid calls.
Parse = Callable[[str, Mapping[str, Any]], list[ToolCall] | None]


@dataclass(frozen=True, slots=True)
class Tagged:
    """Calls between tags, anywhere in the text."""

    name: str
    open: str
    close: str
    parse: Parse
    hints: tuple[str, ...] = ()

    def begins(self, text: str, *, alone: bool, more: bool) -> tuple[int, bool]:
        at = text.find(self.open)
        return (at, True) if at >= 0 else (len(text) - partial(text, self.open), False)

    def take(self, text: str, tools: Mapping[str, Any]) -> Taken | None:
        end = text.find(self.close, len(self.open))
        if end < 0:
            return None
        return Taken(self.parse(text[len(self.open) : end], tools) or [], end + len(self.close))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """Calls in brackets, without tags or other text, and only of offered tools."""

    name: str
    bracket: str
    parse: Parse
    quotes: str
    marks: tuple[str, ...] = ()
    """Tags that may come before."""
    hints: tuple[str, ...] = ()
    _between: re.Pattern[str] = field(default=re.compile(r"[\s;,]*"), repr=False)

    def begins(self, text: str, *, alone: bool, more: bool) -> tuple[int, bool]:
        if not alone:
            return len(text), False
        blank = self._between.match(text) if more else re.match(r"\s*", text)
        rest = text[blank.end() :] if blank else text
        if not rest or any(mark.startswith(rest) for mark in self.marks):
            return 0, False
        return (0, True) if rest.startswith((self.bracket, *self.marks)) else (len(text), False)

    def take(self, text: str, tools: Mapping[str, Any]) -> Taken | None:
        start = re.match(rf"[\s;,]*(?:{'|'.join(map(re.escape, self.marks))})?\s*" if self.marks else r"[\s;,]*", text)
        at = start.end() if start else 0
        if at == len(text):
            return None
        if not text.startswith(self.bracket, at):
            return Taken([], at)
        end = bracket_end(text, at, self.quotes)
        if end < 0:
            return None
        calls = self.parse(text[at:end], tools) or []
        return Taken(calls if all(call.name in tools for call in calls) else [], end)


#: Longest name of a tool, with what may stand around it.
_HEAD = 256


@dataclass(frozen=True, slots=True)
class Mistral:
    """`[TOOL_CALLS]` with a JSON list of calls, or with a name, `[ARGS]` and the arguments for each call."""

    name: str = "mistral"
    hints: tuple[str, ...] = ("[TOOL_CALLS]",)
    _mark: str = "[TOOL_CALLS]"
    _head: re.Pattern[str] = field(
        default=re.compile(r"\s*([\w.\-]{1,128})(?:\[CALL_ID\](\w{1,64}))?(?:\[ARGS\])?\s*(?=\{)"), repr=False
    )

    def begins(self, text: str, *, alone: bool, more: bool) -> tuple[int, bool]:
        at = text.find(self._mark)
        return (at, True) if at >= 0 else (len(text) - partial(text, self._mark), False)

    def take(self, text: str, tools: Mapping[str, Any]) -> Taken | None:
        rest = text[len(self._mark) :]
        blank = len(rest) - len(rest.lstrip())
        if rest.startswith("[", blank):
            end = bracket_end(text, len(self._mark) + blank, '"')
            return None if end < 0 else Taken(json_calls(text[len(self._mark) : end], tools) or [], end)
        brace, line = rest.find("{", 0, _HEAD), rest.find("\n", blank, _HEAD)
        if line >= 0 and (brace < 0 or line < brace):
            return Taken([], len(self._mark))
        if brace < 0:
            return None if len(rest) < _HEAD else Taken([], len(self._mark))
        head = self._head.match(text, len(self._mark))
        if head is None:
            return Taken([], len(self._mark))
        end = bracket_end(text, head.end(), '"')
        if end < 0:
            return None
        body = text[head.end() : end]
        call = json_calls(f'{{"name": "{head[1]}", "arguments": {body}}}', tools)
        return Taken([ToolCall(each.name, each.arguments, head[2] or "") for each in call or ()], end)


#: The first form that parses a template's calls is used: tags before brackets, common ones first.
FORMS: tuple[Form, ...] = (
    Tagged("qwen-coder", "<tool_call>", "</tool_call>", xml_calls, ("<tool_call>", "<function=")),
    Tagged("hermes", "<tool_call>", "</tool_call>", json_calls, ("<tool_call>",)),
    Mistral(),
    Tagged("json in <|tool_call|>", "<|tool_call|>", "<|/tool_call|>", json_calls),
    Tagged("pythonic in <|tool_call_start|>", "<|tool_call_start|>", "<|tool_call_end|>", python_calls),
    Tagged("pythonic in <|python_start|>", "<|python_start|>", "<|python_end|>", python_calls),
    Tagged("pythonic in <function_calls>", "<function_calls>", "</function_calls>", python_calls),
    Bare(
        name="llama-3",
        bracket="{",
        parse=json_calls,
        quotes='"',
        marks=("<|python_tag|>",),
        hints=('"parameters": dictionary of argument name',),
    ),
    Bare(name="pythonic", bracket="[", parse=python_calls, quotes="\"'", hints=("[func_name1(",)),
)
