"""The output of a response, growing with each delta of a chat completion, and the events that report it.

A whole reply is a single delta whose events are not used, so that streamed and whole responses cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sdk.translation.responses.response import Envelope
from lightning_sdk.translation.sse import event

Item = dict[str, Any]
#: Finish reason of a chat completion -> why the response is incomplete.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: Content part -> (the field that grows, the name of its events).
_PARTS = {
    "output_text": ("text", "output_text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("text", "reasoning_text"),
}


class Output:
    """Items of one response. `take` gives the events since the last time."""

    def __init__(self, envelope: Envelope, *, logprobs: bool) -> None:
        self._envelope = envelope
        self._logprobs = logprobs
        """Whether the caller wants them with the text."""
        self._items: list[Item] = []
        self._open: list[int] = []
        """Output indices of items whose end was not told."""
        self._calls: dict[int, int] = {}
        """Number of a tool call in the completion -> output index."""
        self._pending: list[bytes] = []
        self._count = 0
        self._usage: Mapping[str, Any] | None = None
        self._failure = ""
        self._started = False
        self.finish_reason = ""
        self.ended = False

    @property
    def status(self) -> str:
        if not self.ended:
            return "in_progress"
        return "failed" if self._failure else "incomplete" if self.finish_reason in _INCOMPLETE else "completed"

    def items(self) -> list[Item]:
        return self._items

    def take(self) -> bytes:
        taken, self._pending = b"".join(self._pending), []
        return taken

    def response(self) -> dict[str, Any]:
        """The response as it stands."""
        reason = _INCOMPLETE.get(self.finish_reason, "") if self.status == "incomplete" else ""
        return self._envelope.response(self.status, self._items, self._usage, reason, self._failure)

    def start(self, chunk: Mapping[str, Any]) -> None:
        """Tell that the response exists, once; `chunk` names the model that answers."""
        if not self._started:
            self._started = True
            self._envelope.model = chunk.get("model") or self._envelope.model
            self._emit("response.created", response=self.response())
            self._emit("response.in_progress", response=self.response())

    def usage(self, usage: Mapping[str, Any] | None) -> None:
        self._usage = usage or self._usage

    def choice(self, choice: Mapping[str, Any]) -> None:
        """What a choice gained: its delta, its end."""
        delta = choice.get("delta") or {}
        if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
            self._text("reasoning", "reasoning_text", reasoning, [])
        logprobs = (choice.get("logprobs") or {}).get("content") or () if self._logprobs else ()
        if content := delta.get("content"):
            self._text("message", "output_text", content, [_logprob(token) for token in logprobs])
        if refusal := delta.get("refusal"):
            self._text("message", "refusal", refusal, [])
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._call(call.get("index", place), call)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def finish(self) -> None:
        """The completion is whole."""
        if self.finish_reason in ("abort", "error"):
            self.fail(f"the engine stopped the completion: {self.finish_reason}")
            return
        self.start({})
        if not any(item["type"] in ("message", "function_call") for item in self._items):
            self._part("message", "output_text")  # an answer of no text is an answer
        cut = self.finish_reason in _INCOMPLETE
        for index in sorted(self._open):
            self._close(index, "incomplete" if cut and index == len(self._items) - 1 else "completed")
        self.ended = True
        self._emit(f"response.{self.status}", response=self.response())

    def fail(self, message: str) -> None:
        self.start({})
        for index in self._open:
            self._items[index]["status"] = "incomplete"
        self.ended, self._failure = True, message
        self._emit("response.failed", response=self.response())

    def _text(self, item: str, kind: str, text: str, logprobs: list[dict[str, Any]]) -> None:
        index, place = self._part(item, kind)
        part, (field, name) = self._items[index]["content"][place], _PARTS[kind]
        part[field] += text
        extra: dict[str, Any] = {"logprobs": logprobs} if kind == "output_text" else {}
        if logprobs:
            part["logprobs"] += logprobs
        self._at(f"response.{name}.delta", index, content_index=place, delta=text, **extra)

    def _part(self, item: str, kind: str) -> tuple[int, int]:
        """Where to write more of a kind of content: (output index, content index) of a part that is open."""
        index = next((at for at in self._open if self._items[at]["type"] == item), None)
        if index is None:
            self._close_texts()
            index = self._add(_message() if item == "message" else _reasoning())
        content: list[dict[str, Any]] = self._items[index]["content"]
        for place, part in enumerate(content):
            if part["type"] == kind:
                return index, place
        content.append(_empty(kind))
        self._at("response.content_part.added", index, content_index=len(content) - 1, part=_empty(kind))
        return index, len(content) - 1

    def _call(self, number: int, call: Mapping[str, Any]) -> None:
        function = call.get("function") or {}
        if number not in self._calls:
            self._close_texts()
            self._calls[number] = self._add(
                {
                    "type": "function_call",
                    "status": "in_progress",
                    "arguments": "",
                    "call_id": call.get("id") or f"call_{self._envelope.id[-24:]}_{number}",
                    "name": function.get("name") or "",
                }
            )
        elif function.get("name"):
            self._items[self._calls[number]]["name"] += function["name"]
        index, arguments = self._calls[number], function.get("arguments") or ""
        if arguments:
            self._items[index]["arguments"] += arguments
            self._at("response.function_call_arguments.delta", index, delta=arguments)

    def _add(self, item: Item) -> int:
        index = len(self._items)
        kind = {"message": "msg", "reasoning": "rs"}.get(item["type"], "fc")
        added = {"id": self._envelope.item_id(kind, index), **item}
        self._items.append(added)
        self._open.append(index)
        self._emit("response.output_item.added", output_index=index, item=added)
        return index

    def _close_texts(self) -> None:
        """Another item begins: reasoning and text are over. Calls stay open, since their deltas may alternate."""
        for index in [at for at in self._open if self._items[at]["type"] != "function_call"]:
            self._close(index, "completed")

    def _close(self, index: int, status: str) -> None:
        item = self._items[index]
        if item["type"] == "function_call":
            self._at("response.function_call_arguments.done", index, name=item["name"], arguments=item["arguments"])
        for place, part in enumerate(item.get("content") or ()):
            field, name = _PARTS[part["type"]]
            extra = {"logprobs": part["logprobs"]} if part["type"] == "output_text" else {}
            self._at(f"response.{name}.done", index, content_index=place, **{field: part[field]}, **extra)
            self._at("response.content_part.done", index, content_index=place, part=part)
        item["status"] = status
        self._open.remove(index)
        self._emit("response.output_item.done", output_index=index, item=item)

    def _at(self, kind: str, index: int, **fields: Any) -> None:
        self._emit(kind, item_id=self._items[index]["id"], output_index=index, **fields)

    def _emit(self, kind: str, **fields: Any) -> None:
        self._pending.append(event({"type": kind, "sequence_number": self._count, **fields}, kind))
        self._count += 1


def _message() -> Item:
    return {"type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _reasoning() -> Item:
    return {"type": "reasoning", "status": "in_progress", "summary": [], "content": []}


def _empty(kind: str) -> dict[str, Any]:
    if kind == "output_text":
        return {"type": kind, "annotations": [], "logprobs": [], "text": ""}
    return {"type": kind, _PARTS[kind][0]: ""}


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    return {**_token(token), "top_logprobs": [_token(top) for top in token.get("top_logprobs") or ()]}


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token") or "", "bytes": token.get("bytes") or [], "logprob": token.get("logprob")}
