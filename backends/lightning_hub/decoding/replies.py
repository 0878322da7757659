"""Decodes the raw reply of a model server, JSON or a stream of server-sent events, into a `Call`.

Never raises: a reply that cannot be read becomes a call with `problem` set and the raw bytes kept. Decoding goes
straight into typed structs (msgspec), since a reply with 700 ids and log-probs costs 190 us with the json module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from lightning_hub.decoding.anthropic_replies import message_call, starts_message, streamed_call
from lightning_hub.decoding.google_replies import google_call, is_google
from lightning_hub.decoding.surrogates import replace_lone_surrogates
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call, CallMeta, Choice
from lightning_sdk.translation.sse import DONE, read_events


class _Token(msgspec.Struct, gc=False):
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None  # chat completions
    token_logprobs: list[float | None] | None = None  # completions


class _Choice(msgspec.Struct, kw_only=True):
    index: int = 0
    message: msgspec.Raw = msgspec.Raw()
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    weight_versions: list[list[int]] | None = None


class _Usage(msgspec.Struct, kw_only=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None  # Responses
    output_tokens: int | None = None
    prompt_tokens_details: Any = None
    input_tokens_details: Any = None  # Responses

    def count_cached(self) -> int:
        """Prompt tokens that came from the provider's cache."""
        for details in (self.prompt_tokens_details, self.input_tokens_details):
            if isinstance(details, dict) and isinstance(count := details.get("cached_tokens"), int):
                return max(count, 0)
        return 0


class _Reply(msgspec.Struct, kw_only=True):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None
    error: Any = None
    # Responses, whole and as events
    output: list[dict[str, Any]] | None = None
    status: str | None = None
    incomplete_details: dict[str, Any] | None = None
    response: _Reply | None = None
    type: str | None = None
    delta: Any = None
    message: Any = None


class _Merged(msgspec.Struct, kw_only=True):
    """One choice of a stream, growing."""

    parts: dict[str, list[str]] = {}
    fields: dict[str, Any] = {}
    tools: dict[int, dict[str, Any]] = {}
    finish_reason: str = ""
    token_ids: list[int] = []
    logprobs: list[float | None] = []
    versions: list[list[int]] = []
    prompt_ids: list[int] = []


class _Asked(msgspec.Struct):
    """What decides which prompt a choice belongs to."""

    prompt: Any = None
    n: int | None = None


_reply = msgspec.json.Decoder(_Reply)
_asked = msgspec.json.Decoder(_Asked)
_encode = msgspec.json.Encoder().encode
#: Why a response is incomplete, as a chat completion's finish reason.
_INCOMPLETE = {"max_output_tokens": "length"}
_CHAT = "/chat/completions"
#: Deltas of these fields are pieces of one text.
_TEXTS = ("content", "refusal", "reasoning", "reasoning_content", "arguments")
#: The same of an object's fields: a function call's, an audio answer's.
_PIECES = frozenset({"name", "arguments", "data", "transcript"})


def decode(meta: CallMeta, request: bytes, reply: bytes) -> Call:
    """The call of one raw reply. `problem` says what is missing or unreadable."""
    try:
        return _decode(meta, request, reply)
    except Exception as error:  # whatever a provider sends, it is one call
        mended = replace_lone_surrogates(reply)
        return decode(meta, request, mended) if mended != reply else unreadable(meta, request, reply, error)


def unreadable(meta: CallMeta, request: bytes, reply: bytes, error: Exception) -> Call:
    """The call of a reply that cannot be read, which is kept as it came."""
    return _empty_call(meta, request, f"the reply cannot be read: {str(error)[:500]}", reply)


def _empty_call(meta: CallMeta, request: bytes, problem: str, reply: bytes = b"") -> Call:
    return Call(
        meta=meta,
        request=request,
        response_id="",
        model="",
        prompt_ids=b"",
        choices=(),
        input_tokens=0,
        output_tokens=0,
        problem=problem,
        reply=reply,
    )


def _decode(meta: CallMeta, request: bytes, reply: bytes) -> Call:
    if meta.http_status >= 400 or not reply:
        why = _provider_message(reply) or meta.error or "no reply came"
        prefix = f"HTTP {meta.http_status}: " if meta.http_status >= 400 else ""
        return _empty_call(meta, request, prefix + why)
    if is_google(meta.path):
        return google_call(meta, request, reply)
    if meta.streamed and reply.lstrip()[:1] != b"{":
        return (
            _from_stream(meta, request, reply)
            if not starts_message(reply)
            else streamed_call(meta, request, read_events(replace_lone_surrogates(reply)))
        )
    parsed = _reply.decode(reply)
    if parsed.type == "message":
        return message_call(meta, request, reply)
    if parsed.output is not None:
        return _from_response(meta, request, parsed)
    choices = tuple(_choice(each) for each in parsed.choices or ())
    return _call(meta, request, parsed, choices, _prompt_ids(parsed), _error_text(parsed.error))


def _choice(choice: _Choice) -> Choice:
    message = replace_lone_surrogates(bytes(choice.message)) or _encode({"content": choice.text or ""})
    return Choice(
        index=choice.index,
        message=message,
        finish_reason=choice.finish_reason or "",
        token_ids=pack_ints(choice.token_ids or ()),
        logprobs=_pack_logprobs(_logprobs(choice.logprobs)),
        versions=choice.weight_versions or [],
        prompt_ids=pack_ints(choice.prompt_token_ids or ()),
    )


def _call(
    meta: CallMeta, request: bytes, parsed: _Reply, choices: tuple[Choice, ...], prompt: list[int] | None, problem: str
) -> Call:
    usage = parsed.usage or _Usage()
    prompt_ids = pack_ints(prompt or ())
    prompts = _count_prompts(request) if meta.path.endswith("/completions") and not meta.path.endswith(_CHAT) else 1
    if prompts <= 1:
        choices = tuple(replace(choice, prompt_ids=b"") if choice.prompt_ids else choice for choice in choices)
    elif meta.trainable and not problem and not all(choice.prompt_ids for choice in choices):
        problem = f"the request has {prompts} prompts, and the reply does not say which choice belongs to which"
    if meta.trainable and not problem:
        problem = _check(choices, prompt_ids, usage.completion_tokens == 0 or meta.status == "cancelled")
    return Call(
        meta=meta,
        request=request,
        response_id=parsed.id or "",
        model=parsed.model or "",
        prompt_ids=prompt_ids,
        choices=choices,
        input_tokens=usage.prompt_tokens or usage.input_tokens or len(prompt_ids) // 4,
        output_tokens=usage.completion_tokens
        or usage.output_tokens
        or sum(len(choice.token_ids) for choice in choices) // 4,
        problem=problem,
        cached_tokens=usage.count_cached(),
    )


def find_problem(call: Call) -> str:
    """Why a trainable call cannot be trained on, '' if it can."""
    return _check(call.choices, call.prompt_ids, call.output_tokens == 0 or call.meta.status == "cancelled")


def _count_prompts(request: bytes) -> int:
    """How many prompts a request to (text) completions has: a list of texts, or of lists of ids."""
    try:
        prompt = _asked.decode(request).prompt
    except (msgspec.MsgspecError, RecursionError):
        return 1
    return len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1


def _check(choices: tuple[Choice, ...], prompt_ids: bytes, nothing_sampled: bool) -> str:
    """Why a trainable call cannot be trained on, '' if it can."""
    if not choices:
        return "the reply has no choices"
    if not prompt_ids:
        return "the reply has no prompt_token_ids: the server ignored return_token_ids"
    problems = (_check_choice(each) for each in choices if each.token_ids or not nothing_sampled)
    return next(filter(None, problems), "")


def _check_choice(choice: Choice) -> str:
    ids, logprobs = len(choice.token_ids) // 4, len(choice.logprobs) // 4
    if not ids:
        return f"choice {choice.index} has no token_ids: the server ignored return_token_ids"
    if not logprobs:
        return f"choice {choice.index} has no log-probabilities: the server ignored logprobs"
    if ids != logprobs:
        return f"choice {choice.index} has {ids} token ids but {logprobs} log-probabilities"
    if choice.versions and sum(count for _, count in choice.versions) != ids:
        return f"choice {choice.index} has {ids} token ids but weight_versions {choice.versions}"
    return ""


def _logprobs(logprobs: _Logprobs | None) -> list[float | None]:
    if logprobs is None:
        return []
    if logprobs.content is not None:
        return [token.logprob for token in logprobs.content]
    return logprobs.token_logprobs or []


def _pack_logprobs(values: Sequence[float | None]) -> bytes:
    try:
        return pack_floats(values)  # type: ignore[arg-type]
    except ValueError:
        # One that is missing makes the list too short, which `_check` reports.
        return pack_floats([value for value in values if value is not None])


def _prompt_ids(parsed: _Reply) -> list[int] | None:
    if parsed.prompt_token_ids:
        return parsed.prompt_token_ids
    return next((choice.prompt_token_ids for choice in parsed.choices or () if choice.prompt_token_ids), None)


# --- the Responses API, whose replies are shown and not trained on


def _from_response(meta: CallMeta, request: bytes, parsed: _Reply, said: str = "", problem: str = "") -> Call:
    """`said`: text of a stream that may have ended before its last event."""
    output = parsed.output or []
    parts = [part for item in output if item.get("type") == "message" for part in item.get("content") or ()]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part.get("text") or part.get("refusal") or "" for part in parts) or said or None,
    }
    calls = [item for item in output if item.get("type") == "function_call"]
    if calls:
        message["tool_calls"] = [
            {
                "id": call.get("call_id"),
                "type": "function",
                "function": {"name": call.get("name"), "arguments": call.get("arguments")},
            }
            for call in calls
        ]
    finish = ""
    if parsed.status == "completed":
        finish = "tool_calls" if calls else "stop"
    elif parsed.status == "incomplete":
        reason = (parsed.incomplete_details or {}).get("reason") or "incomplete"
        finish = _INCOMPLETE.get(reason, reason)
    choices = (Choice(index=0, message=_encode(message), finish_reason=finish, token_ids=b"", logprobs=b""),)
    return _call(meta, request, parsed, choices, None, problem or _error_text(parsed.error))


# --- streams


def _from_stream(meta: CallMeta, request: bytes, reply: bytes) -> Call:
    head, merged, prompt, problem = _Reply(), dict[int, _Merged](), None, ""
    said: list[str] = []
    for data in read_events(reply):
        if data.strip() == DONE:
            break
        chunk = _reply.decode(data)
        if chunk.response is not None:
            head = chunk.response
            continue
        if chunk.type == "response.output_text.delta":
            said.append(chunk.delta)
        head.id, head.model = head.id or chunk.id, head.model or chunk.model
        head.usage = chunk.usage or head.usage
        prompt = prompt or _prompt_ids(chunk)
        if chunk.prompt_token_ids and len(chunk.choices or ()) == 1:
            chunk.choices[0].prompt_token_ids = chunk.prompt_token_ids  # type: ignore[index]
        problem = problem or _error_text(chunk.error or (chunk.type == "error" and chunk.message))
        for choice in chunk.choices or ():
            _merge(merged.setdefault(choice.index, _Merged()), choice)
    if head.output is not None:
        return _from_response(meta, request, head, "".join(said), problem)
    choices = tuple(_merged_choice(index, merged[index]) for index in sorted(merged))
    return _call(meta, request, head, choices, prompt, problem)


def _merge(into: _Merged, choice: _Choice) -> None:
    for name, value in (choice.delta or {}).items():
        if value is None:
            continue
        if name == "tool_calls":
            _merge_tools(into.tools, value)
        elif name in _TEXTS and isinstance(value, str):
            into.parts.setdefault(name, []).append(value)
        elif isinstance(value, dict) and isinstance(into.fields.setdefault(name, {}), dict):
            _merge_object(into.fields[name], value)
        elif isinstance(value, list) and isinstance(into.fields.get(name), list):
            into.fields[name] = into.fields[name] + value
        else:
            into.fields[name] = value
    if choice.text:
        into.parts.setdefault("content", []).append(choice.text)
    into.finish_reason = choice.finish_reason or into.finish_reason
    into.prompt_ids = into.prompt_ids or choice.prompt_token_ids or []
    into.token_ids += choice.token_ids or ()
    into.logprobs += _logprobs(choice.logprobs)
    for version, count in choice.weight_versions or ():
        if into.versions and into.versions[-1][0] == version:
            into.versions[-1][1] += count
        else:
            into.versions.append([version, count])


def _merge_object(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """What a legacy `function_call`, and `audio`, gain."""
    for name, value in delta.items():
        pieces = name in _PIECES and isinstance(value, str) and isinstance(into.get(name), str)
        into[name] = into[name] + value if pieces else value


def _merge_tools(into: dict[int, dict[str, Any]], deltas: list[dict[str, Any]]) -> None:
    for number, delta in enumerate(deltas):
        tool = into.setdefault(delta.get("index", number), {"function": {"name": "", "arguments": ""}})
        function = delta.get("function") or {}
        tool.update({name: value for name, value in delta.items() if name not in {"index", "function"} and value})
        tool["function"]["name"] += function.get("name") or ""
        tool["function"]["arguments"] += function.get("arguments") or ""


def _merged_choice(index: int, merged: _Merged) -> Choice:
    message: dict[str, Any] = {**merged.fields, "content": None}
    message.update({name: "".join(parts) for name, parts in merged.parts.items()})
    if merged.tools:
        message["tool_calls"] = [merged.tools[number] for number in sorted(merged.tools)]
    return Choice(
        index=index,
        message=_encode(message),
        finish_reason=merged.finish_reason,
        token_ids=pack_ints(merged.token_ids),
        logprobs=_pack_logprobs(merged.logprobs),
        versions=merged.versions,
        prompt_ids=pack_ints(merged.prompt_ids),
    )


# --- errors


def _provider_message(reply: bytes) -> str:
    """What a provider says went wrong, in whichever of the usual shapes."""
    try:
        parsed = msgspec.json.decode(reply)
    except msgspec.MsgspecError:
        return reply[:500].decode(errors="replace").strip()
    if isinstance(parsed, dict):
        for name in ("error", "message", "detail"):
            if parsed.get(name):
                return _error_text(parsed[name])
    return reply[:500].decode(errors="replace").strip()


def _error_text(error: Any) -> str:
    if not error:
        return ""
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)[:2000]
