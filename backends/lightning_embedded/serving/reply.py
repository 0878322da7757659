"""Replies: finished or running sequences as OpenAI's response objects, with vLLM's fields for token ids."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from lightning_embedded.engine.sequence import Sequence
from lightning_embedded.serving.protocol import ChatRequest, Request, TextRequest
from lightning_embedded.text.growing_text import Decode, Text
from lightning_embedded.text.tool_calls import ToolReader
from lightning_embedded.text.tool_syntax import ToolCall


@dataclass(slots=True, kw_only=True)
class ReplyChoice:
    """One completion of a reply."""

    index: int
    sequence: Sequence
    text: Text
    """Incremental decoding, for streams."""
    tools: ToolReader | None
    sent: int = 0
    """Number of tokens that were sent."""
    started: bool = False
    done: bool = False
    """Whether its end was sent."""
    length: int = 0
    """Number of characters before the next token, for text_offset."""


@dataclass(slots=True, kw_only=True)
class Reply:
    """One response, complete or in chunks."""

    request: ChatRequest | TextRequest
    decode: Decode
    prompts: list[list[int]]
    """Ids of each prompt, which has `n` choices."""
    prompt_text: str = ""
    rollout: str = ""
    """Id of the rollout, '' outside of any."""
    choices: list[ReplyChoice] = field(default_factory=list)
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + uuid.uuid4().hex

    @property
    def chat(self) -> bool:
        return isinstance(self.request, ChatRequest)

    @property
    def common(self) -> Request:
        return self.request.common

    def whole(self) -> dict[str, Any]:
        """The response object of a request that is not streamed."""
        body = self._envelope("chat.completion" if self.chat else "text_completion")
        body["choices"] = [self._choice(choice) for choice in self.choices]
        body["usage"] = self.usage()
        if self.common.return_token_ids and len(self.prompts) == 1:
            body["prompt_token_ids"] = self.prompts[0]
        return body

    def opening(self) -> dict[str, Any]:
        """First chunk of a chat stream: the role, and the prompt's ids if requested."""
        body = self._chunk([self._delta(choice, {"role": "assistant", "content": ""}) for choice in self.choices])
        if self.common.return_token_ids:
            body["prompt_token_ids"] = self.prompts[0]
        return body

    def news(self, choice: ReplyChoice) -> dict[str, Any] | None:
        """The next chunk of a choice; None if there is nothing to send yet."""
        sequence = choice.sequence
        finish = sequence.finish
        tokens = slice(choice.sent, len(sequence.token_ids))
        text = choice.text.feed(sequence.token_ids[tokens])
        if finish:
            text += choice.text.finish()
        wanted = self.common.logprobs or self.common.return_token_ids
        if not finish and not text and not wanted:
            return None
        entry = self._chunk_choice(choice, text, finish)
        self._add_tokens(entry, choice, tokens)
        first = not self.chat and not choice.started
        choice.sent, choice.started, choice.done = tokens.stop, True, bool(finish)
        body = self._chunk([entry])
        if first and self.common.return_token_ids:
            body["prompt_token_ids"] = self.prompts[choice.index // self.common.n]
        return body

    def closing(self) -> dict[str, Any]:
        """Last chunk of a stream with `include_usage`."""
        return {**self._chunk([]), "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        prompt = sum(map(len, self.prompts))
        completion = sum(len(choice.sequence.token_ids) for choice in self.choices)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def text(self, sequence: Sequence) -> str:
        """A finished completion's text, without the id that ended it and without stop strings."""
        params = sequence.params
        if not params.stop and not params.stop_ids:
            return self.decode.body(sequence.token_ids)
        whole = Text(self.decode, params.stop, params.stop_ids)
        return whole.feed(sequence.token_ids) + whole.finish()

    def _choice(self, choice: ReplyChoice) -> dict[str, Any]:
        sequence = choice.sequence
        text = self.text(sequence)
        entry: dict[str, Any] = {"index": choice.index, "finish_reason": sequence.finish, "logprobs": None}
        if self.chat:
            content, calls = choice.tools.split(text) if choice.tools is not None else (text, [])
            entry["message"] = {"role": "assistant", "content": content, "refusal": None}
            if calls:
                entry["message"]["tool_calls"] = [_call(call) for call in calls]
                if sequence.finish == "stop":
                    entry["finish_reason"] = "tool_calls"
        else:
            entry["text"] = text
        self._add_tokens(entry, choice, slice(0, len(sequence.token_ids)))
        if not self.chat and self.common.return_token_ids:
            entry["prompt_token_ids"] = self.prompts[choice.index // self.common.n]
        return entry

    def _chunk_choice(self, choice: ReplyChoice, text: str, finish: str) -> dict[str, Any]:
        if not self.chat:
            return {"index": choice.index, "text": text, "logprobs": None, "finish_reason": finish or None}
        delta: dict[str, Any] = {}
        if choice.tools is None:
            pieces: list[str | ToolCall] = [text] if text else []
        else:
            before = choice.tools.calls
            pieces = choice.tools.feed(text, last=bool(finish))
            calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
            if calls:
                delta["tool_calls"] = [{"index": before + place, **_call(call)} for place, call in enumerate(calls)]
            if choice.tools.calls and finish == "stop":
                finish = "tool_calls"
        content = "".join(piece for piece in pieces if isinstance(piece, str))
        if content:
            delta["content"] = content
        return self._delta(choice, delta, finish or None)

    def _add_tokens(self, entry: dict[str, Any], choice: ReplyChoice, tokens: slice) -> None:
        sequence = choice.sequence
        if self.common.logprobs:
            entry["logprobs"] = (
                self._chat_logprobs(sequence, tokens) if self.chat else self._text_logprobs(choice, tokens)
            )
        if self.common.return_token_ids:
            entry["token_ids"] = sequence.token_ids[tokens]
            entry["weight_versions"] = _runs(sequence.versions, tokens.start, tokens.stop)

    def _chat_logprobs(self, sequence: Sequence, tokens: slice) -> dict[str, Any]:
        content = []
        for place in range(tokens.start, tokens.stop):
            one = self._logprob(sequence.token_ids[place], sequence.logprobs[place])
            one["top_logprobs"] = [self._logprob(*top) for top in sequence.tops[place]] if sequence.tops else []
            content.append(one)
        return {"content": content, "refusal": None}

    def _text_logprobs(self, choice: ReplyChoice, tokens: slice) -> dict[str, Any]:
        sequence, offsets = choice.sequence, []
        texts = [self.decode.token(token) for token in sequence.token_ids[tokens]]
        for text in texts:
            offsets.append(choice.length)
            choice.length += len(text)
        tops = [
            {self.decode.token(token): max(value, -9999.0) for token, value in tops} for tops in sequence.tops[tokens]
        ]
        return {
            "tokens": texts,
            "token_logprobs": sequence.logprobs[tokens],
            "top_logprobs": tops or None,
            "text_offset": offsets,
        }

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.decode.token(token)
        # JSON has no -inf; OpenAI writes -9999 for what cannot happen.
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}

    def _delta(self, choice: ReplyChoice, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._envelope("chat.completion.chunk" if self.chat else "text_completion"), "choices": choices}

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.common.model}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _runs(versions: list[list[int]], start: int, stop: int) -> list[list[int]]:
    """The runs of [version, count] that cover tokens start to stop."""
    runs, at = [], 0
    for version, count in versions:
        inside = min(at + count, stop) - max(at, start)
        if inside > 0:
            runs.append([version, inside])
        at += count
    return runs
