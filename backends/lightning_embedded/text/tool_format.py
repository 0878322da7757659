"""The tool format of a model, found by rendering its chat template: whether it shows tools, and how it writes calls.

A call is rendered and then parsed with each form; the form that returns the same call is the template's. Names of
models are not used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lightning_embedded.text.chat_template import Template, TemplateRefused
from lightning_embedded.text.spelling import PROBED, Spelling, read_keyword_spelling, read_spelling
from lightning_embedded.text.tool_calls import ToolReader
from lightning_embedded.text.tool_forms import FORMS, Form
from lightning_sdk.errors import ModelError

_NAME, _ASKED = "probe_of_tools", "Which way?"
_ARGUMENTS = json.dumps(PROBED)
_SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}, "number": {"type": "integer"}}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "Tell.", "parameters": _SCHEMA}}
_SHORT_ID, _LONG_ID = "abcdefghi", "call_0123456789abcdef01234567"


class ToolFormat:
    """The tool format of one chat template.

    Args:
        template: The template.
        ends: Texts of the ids that end a completion.
    """

    def __init__(self, template: Template, ends: tuple[str, ...]) -> None:
        self._template, self._ends = template, tuple(end for end in ends if end)
        self._prompt = self._render([_TOOL]) or ""
        self.is_shown = _NAME in self._prompt
        """Whether the template prints tools."""
        turns = {short: self._turn(_SHORT_ID if short else _LONG_ID) for short in (False, True)}
        self.short_ids = not turns[False] and bool(turns[True])
        """Whether the template requires call ids of nine letters."""
        self.turn = turns[False] or turns[True] or ""
        """What the template renders for a call."""
        printed = self._find_form()
        self.form = printed[0] if printed is not None else self._find_form_by_hints()
        self.spelling = self._spelling(*printed) if printed is not None else None
        """The text around a forced call; None if the template does not print calls in a known form."""

    @property
    def name(self) -> str:
        """Name of the form, or why there is none."""
        if not self.is_shown:
            return "none: the chat template does not show tools"
        return self.form.name if self.form is not None else "none: the chat template's form is not known"

    def reader(self, tools: list[dict[str, Any]], model: str) -> ToolReader:
        """A reader for completions that may call `tools`. ModelError if `model` cannot use tools."""
        if not self.is_shown:
            raise ModelError(
                f"the chat template of {model} does not show tools to the model, which would not know about them: use "
                "a model whose template does, such as Qwen/Qwen2.5-0.5B-Instruct, or leave tools out, describe them "
                "in a message and read the calls from the text yourself"
            )
        if self.form is None:
            raise ModelError(
                f"the chat template of {model} writes a tool call as {self.turn[-200:]!r}, and this engine reads "
                f"{', '.join(form.name for form in FORMS)}: use a model that writes one of these, or vLLM "
                "(engine=vllm with serving.tool_parser)"
            )
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
        return ToolReader(self.form, schemas, short=self.short_ids)

    def _render(self, tools: list[dict[str, Any]] | None, *more: dict[str, Any], begin: bool = True) -> str | None:
        """The rendered text, or None if the template fails."""
        messages = [{"role": "user", "content": _ASKED}, *more]
        try:
            return self._template.render(messages, tools, {"add_generation_prompt": begin})
        except TemplateRefused:
            return None

    def _turn(self, identity: str, calls: int = 1, arguments: str = _ARGUMENTS) -> str | None:
        """The text after the question if the assistant makes this many calls."""
        function = {"name": _NAME, "arguments": arguments}
        call = {"id": identity, "type": "function", "function": function}
        turn = {"role": "assistant", "content": "", "tool_calls": [call] * calls}
        whole = self._render([_TOOL], turn, begin=False)
        return None if whole is None else whole.rpartition(_ASKED)[2]

    def _texts(self, turn: str) -> Iterator[str]:
        """Candidates for what the model writes in a turn, without the template's beginning and end of an answer."""
        begun = self._prompt.rpartition(_ASKED)[2]
        same = next((at for at, (a, b) in enumerate(zip(begun, turn, strict=False)) if a != b), len(begun))
        for at in (len(begun), *sorted({turn.rfind(sign, 0, same) + 1 for sign in "\n>]"}, reverse=True)):
            text = turn[at:] if turn.startswith(begun[:at]) else ""
            for end in self._ends:
                text = text.partition(end)[0]
            if text:
                yield text

    def _spelling(self, form: Form, text: str) -> Spelling | None:
        identity = _SHORT_ID if self.short_ids else _LONG_ID
        twice = list(self._texts(self._turn(identity, 2) or ""))
        before = text.partition(_NAME)[0]

        def write(arguments: dict[str, Any]) -> str | None:
            turn = self._turn(identity, 1, json.dumps(arguments)) or ""
            texts = (each[each.find(before + _NAME) :] for each in self._texts(turn) if before + _NAME in each)
            return next(texts, None)

        return read_spelling(text, twice, _NAME, _ARGUMENTS, identity) or read_keyword_spelling(
            write, twice, _NAME, identity, getattr(form, "close", "")
        )

    def _find_form(self) -> tuple[Form, str] | None:
        """The form of printed calls, and the text that it parses."""
        for text in self._texts(self.turn):
            for form in FORMS:
                _, calls = ToolReader(form, {_NAME: _SCHEMA}).split(text)
                if [(call.name, json.loads(call.arguments)) for call in calls] == [(_NAME, json.loads(_ARGUMENTS))]:
                    # Thinking that the template shows before a call is not part of it.
                    start, _ = form.begins(text, alone=True, more=False)
                    return form, text[start:] if text[:start].strip() else text
        return None

    def _find_form_by_hints(self) -> Form | None:
        """If calls are not printed, the form that the prompt describes."""
        if _NAME in self.turn:
            return None  # they are printed, in an unknown form
        return next((each for each in FORMS if each.hints and all(hint in self._prompt for hint in each.hints)), None)
