"""OpenAI's protocol: reads and checks request bodies, with errors in OpenAI's format that name the field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from lightning_embedded.engine.sequence import Params
from lightning_hub.trajectories.constraint import FREE_CHOICES, constraint_of
from lightning_process.refusal import BadRequest, refuse_too_many

#: Accepted, without effect here.
HARMLESS = frozenset({
    "user", "metadata", "store", "parallel_tool_calls", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "verbosity",
})  # fmt: skip
#: Accepted with this value (or null) only: other values would change the answer in a way that is not supported.
ONLY: dict[str, Any] = {
    "logit_bias": {}, "modalities": ["text"], "functions": [], "best_of": 1, "echo": False, "suffix": "",
    "return_tokens_as_token_ids": False, "skip_special_tokens": False, "min_tokens": 0, "top_k": -1, "min_p": 0,
    "bad_words": [], "allowed_token_ids": None, "add_generation_prompt": True, "continue_final_message": False,
}  # fmt: skip
_READ = frozenset({
    "model", "n", "stream", "stream_options", "temperature", "top_p", "seed", "stop", "stop_token_ids", "max_tokens",
    "logprobs", "return_token_ids", "presence_penalty", "frequency_penalty", "repetition_penalty",
})  # fmt: skip
_CHAT = _READ | {
    "messages", "tools", "tool_choice", "top_logprobs", "max_completion_tokens", "chat_template_kwargs",
    "response_format", "reasoning_effort",
}  # fmt: skip
_TEXT = _READ | {"prompt"}
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MAX_TOP = 20
_MAX_N = 128
_MAX_STOPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The fields that both endpoints have in common."""

    model: str
    n: int
    stream: bool
    include_usage: bool
    logprobs: bool
    return_token_ids: bool
    params: Params
    """For the first of `n`; the others differ in `index`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    common: Request
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    parse_tools: bool
    template_options: dict[str, Any] = field(default_factory=dict)
    constraint: str = ""
    """As `lightning_hub.trajectories.constraint.constraint_of` has it; '' for free text."""
    effort: str | None = None
    """How much the model is to reason, in words that its template may know."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    common: Request
    prompts: list[str] | list[list[int]]


def read_body(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest(f"the body is a JSON {type(body).__name__}: expected an object")
    return body


def read_chat(body: dict[str, Any]) -> ChatRequest:
    """BadRequest for anything that is malformed or not supported."""
    _refuse_unknown(body, _CHAT)
    _only_default(body)
    top = _integer(body, "top_logprobs", 0, 0, _MAX_TOP)
    logprobs = _boolean(body, "logprobs")
    if top and not logprobs:
        raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")
    tools = _tools(body.get("tools"))
    choice = body.get("tool_choice")
    if choice not in FREE_CHOICES and tools is None:
        raise BadRequest(f"tool_choice={_preview(choice)} needs tools", "tool_choice", "invalid_value")
    effort = body.get("reasoning_effort")
    if effort is not None and not isinstance(effort, str):
        raise _wrong("reasoning_effort", effort, "a string such as 'low'")
    options = body.get("chat_template_kwargs") or {}
    if not isinstance(options, dict):
        raise _wrong("chat_template_kwargs", options, "an object")
    limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return ChatRequest(
        common=_common(body, limit, logprobs, top, None),
        messages=_messages(body.get("messages")),
        tools=tools,
        parse_tools=tools is not None and choice != "none",
        template_options=options,
        constraint=constraint_of(body),
        effort=effort,
    )


def read_text(body: dict[str, Any]) -> TextRequest:
    """BadRequest for anything that is malformed or not supported."""
    _refuse_unknown(body, _TEXT)
    _only_default(body)
    wanted = body.get("logprobs")
    top = 0 if wanted is None or isinstance(wanted, bool) else _integer(body, "logprobs", 0, 0, _MAX_TOP)
    common = _common(body, "max_tokens", wanted is not None and wanted is not False, top, 16)
    prompts = _prompts(body.get("prompt"))
    refuse_too_many(len(prompts), common.n)
    return TextRequest(common, prompts)


def _common(body: dict[str, Any], limit: str, logprobs: bool, top: int, default_max: int | None) -> Request:
    model = body.get("model")
    if not isinstance(model, str):
        raise _wrong("model", model, "a string")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong("stream_options", options, "an object")
    params = Params(
        max_tokens=_integer(body, limit, 1 << 30 if default_max is None else default_max, 1, 1 << 30),
        temperature=_number(body, "temperature", 1.0, 0.0, 2.0),
        top_p=_number(body, "top_p", 1.0, 0.0, 1.0, above=True),
        presence=_number(body, "presence_penalty", 0.0, -2.0, 2.0),
        frequency=_number(body, "frequency_penalty", 0.0, -2.0, 2.0),
        repetition=_number(body, "repetition_penalty", 1.0, 0.0, 10.0, above=True),
        stop=_stop(body.get("stop")),
        stop_ids=_stop_ids(body.get("stop_token_ids")),
        seed=None if body.get("seed") is None else _integer(body, "seed", 0, -(1 << 63), (1 << 63) - 1),
        top_logprobs=top,
    )
    return Request(
        model=model,
        n=_integer(body, "n", 1, 1, _MAX_N),
        stream=_boolean(body, "stream"),
        include_usage=bool(options.get("include_usage")),
        logprobs=logprobs,
        return_token_ids=_boolean(body, "return_token_ids"),
        params=params,
    )


def _refuse_unknown(body: dict[str, Any], read: frozenset[str]) -> None:
    for name in body:
        if name not in read and name not in HARMLESS and name not in ONLY:
            raise BadRequest(f"{name} is not supported by this engine; leave it out", name, "unsupported_parameter")


def _only_default(body: dict[str, Any]) -> None:
    for name in body.keys() & ONLY.keys():
        value = body[name]
        if value is not None and value != ONLY[name]:
            only = _preview(ONLY[name])
            message = f"{name}={_preview(value)} is not supported by this engine; leave it out or send {only}"
            raise BadRequest(message, name, "unsupported_parameter")


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", value, "a list with at least one message")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(value)]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _wrong(where, message, "an object")
    role = message.get("role")
    if role not in _ROLES:
        raise _wrong(f"{where}.role", role, "one of " + ", ".join(sorted(_ROLES)))
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise BadRequest(
                f"{where}.{name} is not supported by this engine", f"{where}.{name}", "unsupported_parameter"
            )
    ready = {**message, "content": _content(message.get("content"), f"{where}.content")}
    if role == "developer":
        ready["role"] = "system"
    if message.get("tool_calls") is None:
        ready.pop("tool_calls", None)
    else:
        _check_calls(message["tool_calls"], f"{where}.tool_calls")
    return ready


def _content(value: Any, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise _wrong(where, value, "a string or a list of parts")
    texts = []
    for place, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            raise BadRequest(
                f"{where}[{place}].type={_preview(kind)} is not supported by this engine: only text",
                f"{where}[{place}].type",
                "unsupported_parameter",
            )
        if not isinstance(text, str):
            raise _wrong(f"{where}[{place}].text", text, "a string")
        texts.append(text)
    return "".join(texts)


def _check_calls(calls: Any, where: str) -> None:
    if not isinstance(calls, list):
        raise _wrong(where, calls, "a list")
    for place, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _wrong(f"{where}[{place}].function", function, "an object")
        for name in ("name", "arguments"):
            if not isinstance(function.get(name), str):
                raise _wrong(f"{where}[{place}].function.{name}", function.get(name), "a string")


def _tools(value: Any) -> list[dict[str, Any]] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise _wrong("tools", value, "a list")
    for place, tool in enumerate(value):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else tool
            raise _wrong(f"tools[{place}].type", kind, "'function'")
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"tools[{place}].function", function, "an object with a name")
    return value


def _prompts(value: Any) -> list[str] | list[list[int]]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(part, str) for part in value):
            return value
        if _ids(value):
            return [value]
        if all(isinstance(part, list) and part and _ids(part) for part in value):
            return value
    raise _wrong("prompt", value, "a string, a list of strings, token ids, or a list of those")


def _ids(value: list[Any]) -> bool:
    return all(type(part) is int and part >= 0 for part in value)


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise _wrong("stop", value, "a non-empty string or a list of them")
    if len(stops) > _MAX_STOPS:
        raise BadRequest(f"stop has {len(stops)} strings; at most {_MAX_STOPS} are allowed", "stop", "invalid_value")
    return tuple(stops)


def _stop_ids(value: Any) -> frozenset[int]:
    ids = value or []
    if not isinstance(ids, list) or not _ids(ids):
        raise _wrong("stop_token_ids", value, "a list of token ids")
    if len(ids) > _MAX_STOPS:
        raise BadRequest(
            f"stop_token_ids has {len(ids)} ids; at most {_MAX_STOPS} are allowed", "stop_token_ids", "invalid_value"
        )
    return frozenset(ids)


def _integer(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise _wrong(name, value, f"an integer from {low} to {high}")
    return value


def _number(body: dict[str, Any], name: str, default: float, low: float, high: float, above: bool = False) -> float:
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not low <= value <= high or (above and value == low):
        raise _wrong(name, value, f"a number from {low:g} to {high:g}" + (f", {low:g} excluded" if above else ""))
    return float(value)


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return bool(value)


def _wrong(name: str, value: Any, wanted: str) -> BadRequest:
    return BadRequest(f"{name}={_preview(value)}: expected {wanted}", name, "invalid_value")


def _preview(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
