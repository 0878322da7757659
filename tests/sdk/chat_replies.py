"""What an engine answers to chat completions, whole and as an event stream."""

import json
from typing import Any

from lightning_sdk.translation.sse import event

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def completion(message: dict[str, Any], finish: str = "stop", **choice: Any) -> bytes:
    """The engine's whole reply."""
    whole = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    return json.dumps({"id": "chatcmpl-1", "model": "policy", "choices": [whole], "usage": USAGE}).encode()


def stream(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    """The engine's event stream."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    chunks = [{"id": "chatcmpl-1", "model": "policy", "choices": [choice]} for choice in choices]
    return b"".join(event(chunk) for chunk in [*chunks, {"choices": [], "usage": USAGE}]) + event(b"[DONE]")
