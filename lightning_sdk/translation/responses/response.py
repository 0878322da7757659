"""The response object around the output: what it echoes of the request, its status and its usage."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

#: Echoed as they came, or with the value that the API takes where none is given.
_ECHOED: dict[str, Any] = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {}, "top_logprobs": 0,
    "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None, "safety_identifier": None,
    "service_tier": "default", "store": True, "temperature": 1.0, "tool_choice": "auto", "top_p": 1.0, "user": None,
}  # fmt: skip
_TOOL = {"description": None, "parameters": None, "strict": None}


def new_id() -> str:
    """Begins the id of a response. No provider's ids begin like this, so an id tells where its response came from."""
    return f"resp_lightning_{uuid.uuid4().hex}"


class Envelope:
    """The fields of one response that do not come from its output."""

    def __init__(self, response_id: str, body: Mapping[str, Any]) -> None:
        self._body = body
        self.id = response_id
        self.model = str(body.get("model") or "")
        self.created = int(time.time())

    def item_id(self, kind: str, index: int) -> str:
        """The id of the output item `index`; `kind` is 'msg', 'fc' or 'rs'."""
        return f"{kind}_{self.id.removeprefix('resp_')}_{index}"

    def response(
        self,
        status: str,
        output: list[dict[str, Any]],
        usage: Mapping[str, Any] | None = None,
        reason: str = "",
        error: str = "",
    ) -> dict[str, Any]:
        """The object. `reason`: why it is incomplete; `error`: why it failed."""
        text, reasoning = self._body.get("text") or {}, self._body.get("reasoning") or {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "completed_at": int(time.time()) if status == "completed" else None,
            "error": {"code": "server_error", "message": error} if error else None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self.model,
            "output": output,
            **{name: self._body.get(name, default) for name, default in _ECHOED.items()},
            "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            "tools": [{**_TOOL, **tool} for tool in self._body["tools"]],
            "truncation": "disabled",
            "usage": _usage(usage),
        }


def _usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not usage:
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage.get("total_tokens") or prompt + completion,
    }
