"""A stream of chat completion chunks as the events of a streamed Message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lightning_sdk.translation.messages import verbatim
from lightning_sdk.translation.messages.reply import envelope, error, error_text, stop_reason_of, usage
from lightning_sdk.translation.sse import DONE, EventReader, event

_EMPTY: dict[str, dict[str, Any]] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


class Events:
    """Turns one stream into the other as its bytes come.

    Blocks follow one another: a piece of another kind ends the block before it.
    """

    def __init__(self, stops: Sequence[str], rollout: str) -> None:
        self._reader = EventReader()
        self._stops, self._rollout = stops, rollout
        self._out: list[bytes] = []
        self._started = self._ended = False
        self._blocks = 0
        """Blocks begun so far."""
        self._open = ""
        """Kind of the block that is open: 'thinking', 'text', 'tool 0', ...; '' between blocks."""
        self._tools: dict[int, _Tool] = {}
        """Tool calls by their index among the engine's."""
        self._choice: dict[str, Any] | None = None
        """The chunk's choice that told how the reply ended."""
        self._usage: dict[str, Any] = {}
        self._sampled = self._prompt = 0

    def feed(self, chunk: bytes) -> bytes:
        """Events for what `chunk` completes."""
        for data in self._reader.feed(chunk):
            self._read(data)
        return self._take()

    def end(self) -> bytes:
        """The end of the message, or the error that the stream broke off."""
        for data in self._reader.end():
            self._read(data)
        if not self._ended:
            if self._choice is not None:  # some servers send no [DONE]
                self._finish()
            else:
                self._fail("the engine's event stream ended before the reply did")
        return self._take()

    def _take(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _emit(self, kind: str, **fields: Any) -> None:
        self._out.append(event({"type": kind, **fields}, kind))

    def _read(self, data: bytes) -> None:
        if self._ended:
            return
        if data.strip() == DONE:
            self._finish()
            return
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                self._fail(error_text(chunk["error"]))
            else:
                self._chunk(chunk)
        except (ValueError, LookupError, TypeError, AttributeError) as fault:
            self._fail(f"the engine's chunk {data[:120]!r} cannot be read: {fault!r}")

    def _chunk(self, chunk: dict[str, Any]) -> None:
        self._prompt = self._prompt or len(chunk.get("prompt_token_ids") or ())
        self._usage = chunk.get("usage") or self._usage
        self._start(chunk)
        for choice in (chunk.get("choices") or ())[:1]:
            self._sampled += len(choice.get("token_ids") or ())
            self._delta(choice.get("delta") or {})
            if choice.get("finish_reason"):
                self._choice = choice

    def _start(self, chunk: dict[str, Any]) -> None:
        if not self._started:
            self._started = True
            begun = {**envelope(chunk), "content": [], "stop_reason": None, "stop_sequence": None}
            self._emit("message_start", message={**begun, "usage": usage({"prompt_tokens": self._prompt})})

    def _delta(self, delta: dict[str, Any]) -> None:
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self._piece("thinking", {"type": "thinking_delta", "thinking": thought})
        if text := delta.get("content") or delta.get("refusal"):
            self._piece("text", {"type": "text_delta", "text": text})
        for place, call in enumerate(delta.get("tool_calls") or ()):
            self._tool(call, call.get("index", place))

    def _piece(self, kind: str, delta: dict[str, Any]) -> None:
        if self._open != kind:
            self._begin(kind, _EMPTY[kind])
        self._emit("content_block_delta", index=self._blocks - 1, delta=delta)

    def _begin(self, kind: str, block: dict[str, Any]) -> None:
        self._stop()
        self._emit("content_block_start", index=self._blocks, content_block=block)
        self._open, self._blocks = kind, self._blocks + 1

    def _stop(self) -> None:
        if self._open:
            self._emit("content_block_stop", index=self._blocks - 1)
            self._open = ""

    def _tool(self, call: dict[str, Any], number: int) -> None:
        function = call.get("function") or {}
        if number not in self._tools:
            tool = self._tools[number] = _Tool(call["id"], self._blocks)
            block = {"type": "tool_use", "id": tool.id, "name": function["name"], "input": {}}
            self._begin(f"tool {number}", block)
        tool = self._tools[number]
        if piece := function.get("arguments"):
            tool.pieces.append(piece)
            self._emit(
                "content_block_delta", index=tool.block, delta={"type": "input_json_delta", "partial_json": piece}
            )

    def _finish(self) -> None:
        self._stop()
        for tool in self._tools.values():
            verbatim.keep(self._rollout, tool.id, "".join(tool.pieces))
        self._start({})
        reason, sequence = stop_reason_of(self._choice or {}, self._stops, tools=bool(self._tools))
        counted = self._usage or {"prompt_tokens": self._prompt, "completion_tokens": self._sampled}
        self._emit("message_delta", delta={"stop_reason": reason, "stop_sequence": sequence}, usage=usage(counted))
        self._emit("message_stop")
        self._ended = True

    def _fail(self, text: str) -> None:
        self._out.append(event(error(text), "error"))
        self._ended = True


class _Tool:
    """A tool call on its way."""

    __slots__ = ("block", "id", "pieces")

    def __init__(self, call: str, block: int) -> None:
        self.id, self.block = call, block
        self.pieces: list[str] = []
