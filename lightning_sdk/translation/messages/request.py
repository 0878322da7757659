"""A request to the Messages API as a request to chat completions.

A field without an equivalent is named in an error and never dropped, because the agent would behave differently in
training. What only concerns Anthropic's billing, caching and routing changes no answer and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_sdk.errors import Untranslatable
from lightning_sdk.translation.messages import verbatim

#: Changes where, when and at what price an answer is made, and not the answer.
_HARMLESS = frozenset({
    "cache_control", "service_tier", "inference_geo", "speed", "diagnostics", "user_profile_id", "workspace_id",
    "billing_policy", "fallback_credit_token", "anthropic_version", "anthropic_beta",
})  # fmt: skip
#: Names of one thing in both protocols.
_SAME = {
    "model": "model", "max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
    "stop_sequences": "stop", "stream": "stream",
}  # fmt: skip
_EFFORTS = frozenset({"low", "medium", "high", "xhigh"})


def chat(body: Mapping[str, Any], rollout: str) -> dict[str, Any]:
    """The body for chat completions, asked for in a rollout. Untranslatable for what has no equivalent there."""
    given = {name: value for name, value in body.items() if value is not None and name not in _HARMLESS}
    new = {_SAME[name]: given.pop(name) for name in _SAME if name in given}
    new["messages"] = _system(given.pop("system", None)) + _messages(given.pop("messages", None), rollout)
    for name, value in given.items():
        if name not in _OTHERS:
            raise _no_word(name, value)
        new.update(_OTHERS[name](value))
    if not new.get("stop"):
        new.pop("stop", None)
    if new.get("stream"):
        new["stream_options"] = {"include_usage": True}
    if new["messages"] and new["messages"][-1]["role"] == "assistant":
        # Anthropic goes on with what the last message began; so do engines when they are told to.
        new.update(continue_final_message=True, add_generation_prompt=False)
    return new


def _no_word(
    name: str, value: Any, instead: str = "leave it out of the calls of a role that is trained"
) -> Untranslatable:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return Untranslatable(f"{name}={shown} has no equivalent in chat completions, which trained roles use; {instead}")


# --- messages


def _system(value: Any) -> list[dict[str, Any]]:
    if not value:
        return []
    return [{"role": "system", "content": _text(value, "system")}]


def _messages(value: Any, rollout: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _no_word("messages", value, "give a list of messages")
    return [new for place, each in enumerate(value) for new in _message(each, f"messages[{place}]", rollout)]


def _message(value: Any, where: str, rollout: str) -> Iterator[dict[str, Any]]:
    role = value.get("role") if isinstance(value, Mapping) else None
    if role not in ("user", "assistant", "system"):
        raise _no_word(f"{where}.role", role, "use 'user' or 'assistant'")
    content = value.get("content")
    if isinstance(content, str):
        yield {"role": role, "content": content}
    elif role == "system":
        yield {"role": role, "content": _text(content, f"{where}.content")}
    elif role == "assistant":
        yield _assistant(_blocks(content, f"{where}.content"), rollout)
    else:
        yield from _user(_blocks(content, f"{where}.content"))


def _blocks(value: Any, where: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(where, type, block) of each block."""
    if not isinstance(value, list) or not all(isinstance(block, Mapping) for block in value):
        raise _no_word(where, value, "give text or a list of blocks")
    return [(f"{where}[{place}]", str(block.get("type")), block) for place, block in enumerate(value)]


def _assistant(blocks: list[tuple[str, str, Mapping[str, Any]]], rollout: str) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for where, kind, block in blocks:
        if kind == "text":
            texts.append(str(block.get("text") or ""))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind == "tool_use":
            calls.append(_tool_use(block, rollout))
        else:
            raise _no_word(where, block)
    new: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    if thoughts:
        new["reasoning_content"] = "".join(thoughts)
    if calls:
        new["tool_calls"] = calls
    return new


def _tool_use(block: Mapping[str, Any], rollout: str) -> dict[str, Any]:
    arguments = verbatim.recall(rollout, str(block.get("id")), block.get("input") or {})
    return {"id": block.get("id"), "type": "function", "function": {"name": block.get("name"), "arguments": arguments}}


def _user(blocks: list[tuple[str, str, Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for where, kind, block in blocks:
        if kind == "text":
            parts.append({"type": "text", "text": str(block.get("text") or "")})
        elif kind == "image":
            parts.append(_image(block, where))
        elif kind == "tool_result":
            if parts:
                yield {"role": "user", "content": _join_parts(parts)}
                parts = []
            yield _tool_result(block, where)
        else:
            raise _no_word(where, block, "give its text in a text block")
    if parts or not blocks:
        yield {"role": "user", "content": _join_parts(parts)}


def _join_parts(parts: list[dict[str, Any]]) -> Any:
    """One text as a text, since some templates read nothing else; several parts stay apart."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _image(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, Mapping) else None
    if isinstance(source, Mapping) and kind == "base64":
        url = f"data:{source.get('media_type')};base64,{source.get('data')}"
    elif isinstance(source, Mapping) and kind == "url":
        url = str(source.get("url"))
    else:
        raise _no_word(f"{where}.source", source, "give the image as base64 or as a url")
    return {"type": "image_url", "image_url": {"url": url}}


def _tool_result(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    text = _text(block.get("content") or "", f"{where}.content")
    if block.get("is_error") and not (isinstance(text, str) and text.lower().startswith("error")):
        # Chat completions have no such flag, but the model has to see it.
        text = f"Error: {text}" if isinstance(text, str) else [{"type": "text", "text": "Error: "}, *text]
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}


def _text(value: Any, where: str) -> Any:
    """Text, or blocks of text, as content."""
    if isinstance(value, str):
        return value
    parts: list[dict[str, Any]] = []
    for place, kind, block in _blocks(value, where):
        if kind != "text":
            raise _no_word(place, block, "only text is allowed there")
        parts.append({"type": "text", "text": str(block.get("text") or "")})
    return _join_parts(parts)


# --- other fields


def _tools(value: Any) -> dict[str, Any]:
    return {"tools": [_tool(tool, f"tools[{place}]") for place, tool in enumerate(value)]} if value else {}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") not in (None, "custom"):
        raise _no_word(where, tool, "use a custom tool with a name and an input_schema")
    for name in ("defer_loading", "input_examples"):
        if tool.get(name):
            raise _no_word(f"{where}.{name}", tool[name])
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _tool_choice(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    new: dict[str, Any] = {}
    if kind == "tool":
        new["tool_choice"] = {"type": "function", "function": {"name": value.get("name")}}
    elif kind in ("auto", "any", "none"):
        new["tool_choice"] = "required" if kind == "any" else kind
    else:
        raise _no_word("tool_choice", value, "use auto, any, tool or none")
    if value.get("disable_parallel_tool_use") is not None:
        new["parallel_tool_calls"] = not value["disable_parallel_tool_use"]
    return new


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or set(value) - {"user_id"}:
        raise _no_word("metadata", value, "only user_id is allowed there")
    return {"user": value["user_id"]} if value.get("user_id") else {}


def _thinking(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or value.get("type") != "disabled":
        raise _no_word("thinking", value)
    return {}


def _output_config(value: Any) -> dict[str, Any]:
    config = {name: each for name, each in value.items() if each is not None} if isinstance(value, Mapping) else None
    if config is None or set(config) - {"effort", "format"}:
        raise _no_word("output_config", value, "only effort and format are allowed there")
    new: dict[str, Any] = {}
    if "effort" in config:
        if config["effort"] not in _EFFORTS:
            raise _no_word("output_config.effort", config["effort"], "use low, medium, high or xhigh")
        new["reasoning_effort"] = config["effort"]
    if "format" in config:
        form = config["format"]
        if not isinstance(form, Mapping) or form.get("type") != "json_schema":
            raise _no_word("output_config.format", form, "use json_schema")
        new["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": form.get("schema"), "strict": True},
        }
    return new


_OTHERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "metadata": _metadata,
    "thinking": _thinking,
    "output_config": _output_config,
}
