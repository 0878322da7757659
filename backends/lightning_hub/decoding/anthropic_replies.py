"""Reads a reply of the Messages API, whole or as events, so that people can look at the call. It is never trained
on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from lightning_hub.decoding.surrogates import replace_lone_surrogates
from lightning_sdk.trace.call import Call, CallMeta, Choice

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def starts_message(event: bytes) -> bool:
    """Whether the beginning of an event stream is that of a Message."""
    return b'"message_start"' in event[:200]


def message_call(meta: CallMeta, request: bytes, reply: bytes) -> Call:
    """The call of a whole Message."""
    return _call(meta, request, msgspec.json.decode(replace_lone_surrogates(reply)), "")


def streamed_call(meta: CallMeta, request: bytes, events: Iterable[bytes]) -> Call:
    """The call of a streamed Message, up to where it was read."""
    message: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    problem = ""
    for data in events:
        try:
            event = msgspec.json.decode(data)
        except ValueError:  # cut off
            break
        kind = event.get("type")
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "partial": ""}
        elif kind == "content_block_delta":
            _add(blocks.setdefault(event["index"], {"type": "text", "partial": ""}), event["delta"])
        elif kind == "message_delta":
            message.update(event.get("delta") or {})
            message["usage"] = {**(message.get("usage") or {}), **_without_none(event.get("usage"))}
        elif kind == "error":
            problem = str((event.get("error") or {}).get("message") or event)[:2000]
    message["content"] = [blocks[number] for number in sorted(blocks)]
    return _call(meta, request, message, problem)


def _without_none(fields: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, into in (("text", "text"), ("thinking", "thinking"), ("partial_json", "partial")):
        if isinstance(delta.get(name), str):
            block[into] = (block.get(into) or "") + delta[name]


def _call(meta: CallMeta, request: bytes, message: dict[str, Any], problem: str) -> Call:
    usage = message.get("usage") or {}
    reason = str(message.get("stop_reason") or "")
    choice = Choice(
        index=0,
        message=msgspec.json.encode(_chat_message(message)),
        finish_reason=_FINISH.get(reason, reason),
        token_ids=b"",
        logprobs=b"",
    )
    return Call(
        meta=meta,
        request=request,
        response_id=str(message.get("id") or ""),
        model=str(message.get("model") or ""),
        prompt_ids=b"",
        choices=(choice,),
        input_tokens=sum(_count(usage, name) for name in _INPUT),
        output_tokens=_count(usage, "output_tokens"),
        problem=problem,
        cached_tokens=_count(usage, "cache_read_input_tokens"),
        cache_written_tokens=_count(usage, "cache_creation_input_tokens"),
    )


def _count(usage: dict[str, Any], name: str) -> int:
    """A number of tokens; 0 for what is none."""
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _chat_message(message: dict[str, Any]) -> dict[str, Any]:
    """The content as an assistant message of chat completions, which is what everything else here reads."""
    blocks = message.get("content") or []
    said: dict[str, Any] = {"role": "assistant", "content": _join_texts(blocks, "text")}
    if thoughts := _join_texts(blocks, "thinking"):
        said["reasoning_content"] = thoughts
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": block.get("partial") or _json(block.get("input"))},
        }
        for block in blocks
        if str(block.get("type")).endswith("tool_use")
    ]
    if calls:
        said["tool_calls"] = calls
    return said


def _join_texts(blocks: list[dict[str, Any]], kind: str) -> str | None:
    texts = [block.get(kind) or "" for block in blocks if block.get("type") == kind]
    return "".join(texts) if texts else None


def _json(value: Any) -> str:
    return json.dumps(value or {}, ensure_ascii=False)
