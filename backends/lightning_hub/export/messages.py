"""The messages of a call in the form of the GenAI conventions: each with a role and parts, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from lightning_sdk.trace import genai
from lightning_sdk.trace.call import Choice

_CONVERSATIONS = ("messages", "input", "prompt", "contents")
_INSTRUCTIONS = ("system", "instructions", "systemInstruction", "system_instruction")
_LIMIT = 262_144
"""Bytes of one attribute. A longer one is left out, as half a JSON document is none."""


def messages(request: dict[str, Any], choices: Iterable[Choice]) -> dict[str, str]:
    """The attributes of what was asked, what was answered, and which tools were offered."""
    told = {
        genai.INPUT_MESSAGES: [read_message(each) for each in request_messages(request)],
        genai.OUTPUT_MESSAGES: [
            {**read_message(msgspec.json.decode(choice.message)), "finish_reason": choice.finish_reason}
            for choice in choices
        ],
        genai.TOOL_DEFINITIONS: request.get("tools"),
    }
    written = {name: msgspec.json.encode(value).decode() for name, value in told.items() if value}
    return {name: text for name, text in written.items() if len(text) <= _LIMIT}


def request_messages(request: dict[str, Any]) -> list[Any]:
    """The messages of a request to chat completions, messages, responses, generateContent or (text) completions."""
    found: Any = next((value for name in _CONVERSATIONS if (value := request.get(name))), [])
    found = found if isinstance(found, list) else [{"role": "user", "content": found}]
    before = next((value for name in _INSTRUCTIONS if (value := request.get(name))), None)
    return [{"role": "system", "content": before}, *found] if before else found


def read_message(message: Any) -> dict[str, Any]:
    """A message of any of these APIs, with its role and parts."""
    if not isinstance(message, dict):
        return {"role": "user", "parts": [_part(message)]}
    role, body = message.get("role") or "assistant", message.get("content", message.get("parts"))
    if isinstance(body, dict) and "parts" in body:  # Google's
        body = body["parts"]
    if role == "tool":
        return {
            "role": "tool",
            "parts": [
                {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": body},
            ],
        }
    parts = [_part(each) for each in (body if isinstance(body, list) else [body]) if each]
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str):
            parts.insert(0, {"type": "reasoning", "content": message[name]})
            break
    return {"role": role, "parts": parts + [_tool_call(each) for each in message.get("tool_calls") or []]}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, dict):
        return {"type": "text", "content": part["text"]} if isinstance(part.get("text"), str) else part
    return {"type": "text", "content": part if isinstance(part, str) else str(part)}


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments"),
    }
