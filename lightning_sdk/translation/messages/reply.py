"""A whole reply of chat completions as a Message, and an engine's error as Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.messages import verbatim

_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 409: "conflict_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


def message(body: bytes, stops: Sequence[str], rollout: str) -> dict[str, Any]:
    """The Message of a chat completion's first choice.

    Args:
        stops: The request's stop sequences.
        rollout: Id of the rollout that asked, '' for none.

    Raises:
        Untranslatable: the body is not a chat completion.
    """
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        said = choice["message"]
        content = _content(said, rollout)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Untranslatable(
            f"the engine answered {body[:120]!r}, which is not a chat completion ({error!r}); see the engine's log"
        ) from None
    tools = any(block["type"] == "tool_use" for block in content)
    reason, sequence = stop_reason_of(choice, stops, tools=tools)
    if said.get("refusal"):
        reason = "refusal"
    return {
        **envelope(completion),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage(completion.get("usage") or {}),
    }


def _content(said: dict[str, Any], rollout: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if thought := said.get("reasoning_content") or said.get("reasoning"):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text := said.get("content") or said.get("refusal"):
        blocks.append({"type": "text", "text": text})
    for call in said.get("tool_calls") or ():
        function = call["function"]
        arguments = function.get("arguments") or ""
        verbatim.keep(rollout, call["id"], arguments)
        blocks.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": verbatim.parse(arguments)}
        )
    return blocks


def envelope(completion: dict[str, Any]) -> dict[str, Any]:
    """What every Message has, whole or begun."""
    number = str(completion.get("id") or "").removeprefix("chatcmpl-")
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": completion.get("model") or ""}


def stop_reason_of(choice: dict[str, Any], stops: Sequence[str], *, tools: bool) -> tuple[str, str | None]:
    """(stop_reason, stop_sequence) of a choice. Engines that name the stop string they met put it in `stop_reason`."""
    finish, met = choice.get("finish_reason") or "stop", choice.get("stop_reason")
    if finish == "stop" and isinstance(met, str) and met in stops:
        return "stop_sequence", met
    if finish == "stop" and tools:
        return "tool_use", None
    return _STOPS.get(finish, "end_turn"), None


def usage(counted: dict[str, Any]) -> dict[str, int]:
    """Anthropic counts the cached part of a prompt apart."""
    cached = (counted.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return {
        "input_tokens": (counted.get("prompt_tokens") or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": counted.get("completion_tokens") or 0,
    }


def error_body(body: bytes, http_status: int) -> bytes:
    """Any server's error in Anthropic's shape, its type by the HTTP status."""
    kind = _ERRORS.get(http_status) or ("api_error" if http_status >= 500 else "invalid_request_error")
    return json.dumps(error(_error_message(body), kind), ensure_ascii=False).encode()


def error(text: str, kind: str = "api_error") -> dict[str, Any]:
    """An error as one object, which is also the data of a stream's `error` event."""
    return {"type": "error", "error": {"type": kind, "message": text}}


def _error_message(body: bytes) -> str:
    """The message of an error in one of the usual shapes."""
    text = body.decode(errors="replace").strip()
    try:
        parsed = json.loads(text)
    except ValueError:
        return text[:2000]
    for name in ("error", "message", "detail"):
        if isinstance(parsed, dict) and parsed.get(name):
            return error_text(parsed[name])
    return text[:2000]


def error_text(problem: Any) -> str:
    """What the `error` of a reply or of a chunk says."""
    return str(problem.get("message") or problem) if isinstance(problem, dict) else str(problem)
