"""The chat template of a tokenizer, compiled once; renders what `apply_chat_template` renders."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import meta
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

_PROBE = '{"a":  [1,2]}'  # with spacing that no serializer produces


class TemplateRefused(ValueError):
    """The template cannot render these messages. The message is the template's own."""


class Verbatim(dict[str, Any]):
    """A JSON object that remembers its text, and is rendered as that text again."""

    def __init__(self, text: str) -> None:
        super().__init__(json.loads(text))
        self.text = text


class Template:
    """Renders messages as text. Templates come with models, so they run in jinja's sandbox."""

    def __init__(self, source: str, variables: dict[str, Any]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source)
        self.asks = frozenset(meta.find_undeclared_variables(environment.parse(source)))
        """The variables that it uses."""
        self._variables = variables
        self._text_arguments = self._prints_text_arguments()

    @classmethod
    def of(cls, tokenizer: Any) -> Template:
        """The tokenizer's template. ValueError if it has none."""
        source = tokenizer.get_chat_template()
        return cls(source, dict(tokenizer.special_tokens_map))

    def render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, options: dict[str, Any] | None = None
    ) -> str:
        """The prompt as text, up to where the assistant begins. TemplateRefused if the template fails."""
        try:
            ready = [self._prepare(message) for message in messages]
            variables: dict[str, Any] = {**self._variables, "documents": None, **(options or {})}
            variables.setdefault("add_generation_prompt", True)
            return self._template.render(messages=ready, tools=tools, **variables)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateRefused(f"the model's chat template cannot render these messages: {error}") from error

    def _prepare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Convert arguments for the template: OpenAI sends text, most templates expect an object, some the text."""
        calls = message.get("tool_calls")
        if not calls or self._text_arguments:
            return message
        ready = []
        for call in calls:
            arguments = call["function"]["arguments"]
            if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
                ready.append({**call, "function": {**call["function"], "arguments": Verbatim(arguments)}})
            else:
                ready.append(call)
        return {**message, "tool_calls": ready}

    def _prints_text_arguments(self) -> bool:
        self._text_arguments = True
        call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": _PROBE}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            return _PROBE in self.render(messages, None)
        except TemplateRefused:
            return False


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote; it does not affect rendering."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_plain"), [], [], body).set_lineno(line)

    def _plain(self, caller: Callable[[], str]) -> str:
        return caller()


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    kept: list[str] = []
    marked = _mark_verbatim(value, kept)
    text = json.dumps(marked, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    for place, written in enumerate(kept):
        text = text.replace(json.dumps(_placeholder(place), ensure_ascii=ensure_ascii), written)
    return text


def _mark_verbatim(value: Any, kept: list[str]) -> Any:
    """The value with a placeholder for each `Verbatim` in it, whose texts are appended to `kept`."""
    if isinstance(value, Verbatim):
        kept.append(value.text)
        return _placeholder(len(kept) - 1)
    if isinstance(value, dict):
        return {key: _mark_verbatim(each, kept) for key, each in value.items()}
    return [_mark_verbatim(each, kept) for each in value] if isinstance(value, list | tuple) else value


def _placeholder(place: int) -> str:
    return f"\ue000verbatim {place}\ue001"


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
