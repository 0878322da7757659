"""Reads a reply of Google's `generateContent`, whole or as events, so that people and searches can look at the call.
It is never trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lightning_hub.decoding.surrogates import replace_lone_surrogates
from lightning_sdk.trace.call import Call, CallMeta, Choice
from lightning_sdk.translation.sse import read_events

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
_OUTPUT = ("candidatesTokenCount", "thoughtsTokenCount")


def is_google(path: str) -> bool:
    """Whether a call to this path is answered in Google's form."""
    return path.lower().endswith(("generatecontent", "generatecontent/"))


def google_call(meta: CallMeta, request: bytes, reply: bytes) -> Call:
    """The call of a reply, up to where it was read."""
    reply = replace_lone_surrogates(reply)
    if not meta.streamed or reply.lstrip()[:1] in (b"{", b"["):
        return _call(meta, request, [msgspec.json.decode(reply)])
    chunks = []
    for data in read_events(reply):
        try:
            chunks.append(msgspec.json.decode(data))
        except ValueError:  # cut off
            break
    return _call(meta, request, chunks)


def _call(meta: CallMeta, request: bytes, chunks: Iterable[Any]) -> Call:
    """`chunks`: the reply in pieces of the same form, of which the last usage counts."""
    head: dict[str, Any] = {}
    parts: dict[int, list[Mapping[str, Any]]] = {}
    finish: dict[int, str] = {}
    for chunk in chunks:
        # A stream without events is one list of such pieces.
        for piece in chunk if isinstance(chunk, list) else [chunk]:
            head |= {name: value for name, value in piece.items() if value is not None}
            for place, candidate in enumerate(piece.get("candidates") or ()):
                index = _count(candidate, "index") or place
                content = candidate.get("content") or {}
                parts.setdefault(index, []).extend(content.get("parts") or ())
                finish[index] = str(candidate.get("finishReason") or finish.get(index, ""))
    usage, error = head.get("usageMetadata") or {}, head.get("error")
    return Call(
        meta=meta,
        request=request,
        response_id=str(head.get("responseId") or ""),
        model=str(head.get("modelVersion") or ""),
        prompt_ids=b"",
        choices=tuple(_choice(index, parts[index], finish[index]) for index in sorted(parts)),
        input_tokens=_count(usage, "promptTokenCount"),
        output_tokens=sum(_count(usage, name) for name in _OUTPUT),
        problem=str(error.get("message") or error)[:2000] if isinstance(error, dict) else "",
        cached_tokens=_count(usage, "cachedContentTokenCount"),
    )


def _choice(index: int, parts: Iterable[Mapping[str, Any]], reason: str) -> Choice:
    """As an assistant message of chat completions, which is what everything else here reads."""
    parts = list(parts)
    said: dict[str, Any] = {"role": "assistant", "content": _join_texts(parts, thought=False)}
    if thoughts := _join_texts(parts, thought=True):
        said["reasoning_content"] = thoughts
    asked = [each["functionCall"] for each in parts if isinstance(each.get("functionCall"), dict)]
    if asked:
        said["tool_calls"] = [
            {
                "id": each.get("id"),
                "type": "function",
                "function": {
                    "name": each.get("name"),
                    "arguments": json.dumps(each.get("args") or {}, ensure_ascii=False),
                },
            }
            for each in asked
        ]
    finish = "tool_calls" if asked and reason == "STOP" else _FINISH.get(reason, reason.lower())
    return Choice(index=index, message=msgspec.json.encode(said), finish_reason=finish, token_ids=b"", logprobs=b"")


def _join_texts(parts: Iterable[Mapping[str, Any]], *, thought: bool) -> str | None:
    texts = [
        each["text"] for each in parts if isinstance(each.get("text"), str) and bool(each.get("thought")) is thought
    ]
    return "".join(texts) if texts else None


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
