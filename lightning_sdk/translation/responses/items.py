"""Input items as chat messages.

What one completion put out (reasoning, text, function calls) is several items and one chat message. They are joined
again, so that a conversation sent back renders to the very prompt that continues what the engine has sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning_sdk.errors import Untranslatable

Item = dict[str, Any]
Message = dict[str, Any]
_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}


def messages_of(value: Any, known: Callable[[str], Item | None]) -> list[Message]:
    """The chat messages of a request's `input`: text, or a list of items.

    Args:
        known: The item that a reference by its id stands for, None if there is none.

    Raises:
        Untranslatable: for an item that chat completions cannot express.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list | tuple):
        raise Untranslatable(f"input={_preview(value)}: expected text or a list of items")
    reader = _Reader(known)
    for place, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise Untranslatable(f"input[{place}]={_preview(item)}: expected an object")
        reader.read(item, f"input[{place}]")
    return reader.messages


class _Reader:
    """Messages so far, and whether the last one is an assistant's that may still grow."""

    def __init__(self, known: Callable[[str], Item | None]) -> None:
        self._known = known
        self.messages: list[Message] = []
        self._reasoning = ""

    def read(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type") or "message"
        if kind == "message":
            self._message(item, where)
        elif kind == "function_call":
            self._call(item, where)
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{where}.output")
            self._add({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind == "reasoning":
            # Encrypted reasoning and summaries say nothing to another model; chat completions leave them out as well.
            self._reasoning += "".join(part.get("text") or "" for part in item.get("content") or ())
        elif kind == "item_reference":
            self.read(self._resolve(item.get("id"), where), where)
        else:
            raise Untranslatable(
                f"{where}.type={kind!r} has no equivalent in chat completions; leave this item out, or have your own "
                "code do what the tool did and send it as a function_call and its function_call_output"
            )

    def _resolve(self, item_id: Any, where: str) -> Item:
        found = self._known(str(item_id))
        if found is None:
            raise Untranslatable(
                f"{where}: the item {item_id!r} is not known in this process; send the item itself, not a reference"
            )
        return found

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role = _ROLES.get(item.get("role") or "")
        if role is None:
            raise Untranslatable(f"{where}.role={item.get('role')!r}: expected one of {', '.join(_ROLES)}")
        content = _content(item.get("content"), f"{where}.content")
        last = self._last_assistant()
        # Text after the calls of the same completion: between two completions there are the calls' outputs.
        if role == "assistant" and last and last.get("tool_calls") and isinstance(content, str):
            last["content"] = (last["content"] or "") + content
        elif role == "assistant":
            self._add(self._assistant(content))
        else:
            self._add({"role": role, "content": content})

    def _call(self, item: Mapping[str, Any], where: str) -> None:
        if item.get("namespace"):
            raise Untranslatable(f"{where}.namespace={item['namespace']!r}: use function tools without a namespace")
        last = self._last_assistant()
        if last is None or self._reasoning:
            last = self._assistant(None)
            self._add(last)
        function = {"name": item.get("name"), "arguments": item.get("arguments") or ""}
        last.setdefault("tool_calls", []).append({"id": item.get("call_id"), "type": "function", "function": function})

    def _assistant(self, content: Any) -> Message:
        message: Message = {"role": "assistant", "content": content}
        if self._reasoning:
            message["reasoning_content"], self._reasoning = self._reasoning, ""
        return message

    def _last_assistant(self) -> Message | None:
        return self.messages[-1] if self.messages and self.messages[-1]["role"] == "assistant" else None

    def _add(self, message: Message) -> None:
        self._reasoning = ""
        self.messages.append(message)


def _content(value: Any, where: str) -> Any:
    """Chat content: text where there is text alone, else a list of parts."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list | tuple):
        raise Untranslatable(f"{where}={_preview(value)}: expected text or a list of parts")
    parts = [_part(part, f"{where}[{place}]") for place, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts) and len(parts) < 2:
        return parts[0]["text"] if parts else ""
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if kind == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file" and part.get("file_data"):
        return {"type": "file", "file": {name: part[name] for name in ("file_data", "filename") if part.get(name)}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    if kind in ("input_image", "input_file"):
        raise Untranslatable(
            f"{where}: a file that only the provider can read ({_preview(part)}); send its content: "
            + ("image_url='data:image/png;base64,...'" if kind == "input_image" else "file_data='data:...;base64,...'")
        )
    raise Untranslatable(f"{where}.type={kind!r} has no equivalent in chat completions; send it as input_text")


def _preview(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
