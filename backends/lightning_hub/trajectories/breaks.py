"""Breaks: why a call opened a new row instead of continuing one, found by comparing the messages of both calls.

A trajectory knows where the ids of the two differ; only the messages show what made them differ: the chat template, an
agent that sent a turn back changed, or an agent that changed what came before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from lightning_hub.trajectories.trajectory import Trajectory
from lightning_sdk.trace.call import Call


class Reason(StrEnum):
    """Why a row was opened."""

    TEMPLATE = "template"
    """The messages continue unchanged but the ids do not: the chat template renders an earlier turn differently."""
    THINKING = "thinking left out"
    """The same, and what is missing is the thinking of an earlier turn, which the chat template leaves out; or what it
    begins an answer with if thinking is switched off."""
    REFORMATTED = "reformatted tool call"
    """A tool call came back with the same meaning but another id, order or spacing."""
    NOT_KEPT = "sampled text not kept"
    """The sampled message came back changed, or without its reasoning, or not at all."""
    REWRITTEN = "rewritten history"
    """An earlier message was changed or dropped."""
    TOOLS = "tools changed"
    """The request offers different tools, which the chat template writes at the beginning."""
    TEMPERATURE = "another temperature"
    """All ids agree; a row has one temperature."""
    BRANCH = "branch"
    """The same messages were asked again: a retry or a second try. Not a fault."""
    CONVERSATION = "new conversation"
    """Nothing beyond a system prompt is shared. Not a fault."""

    @property
    def is_fault(self) -> bool:
        """Whether a conversation that could have been one row was cut in two."""
        return self not in {Reason.BRANCH, Reason.CONVERSATION}


@dataclass(frozen=True, slots=True)
class Opening:
    """A row that is not the first of its role in its rollout."""

    role: str
    call: str
    """The call that opened the row."""
    previous: str
    """The call that it could have continued, '' if there is none."""
    reason: Reason


class _Request(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    tools: Any = None
    prompt: Any = None


_requests = msgspec.json.Decoder(_Request)
#: Fields of an assistant message that carry nothing into the next prompt.
_IDLE = ("refusal", "annotations", "audio", "function_call", "name", "role", "content", "tool_calls")
_REASONING = ("reasoning", "reasoning_content")
#: Marks that end the thinking in a sampled text.
_THOUGHT = ("</think>", "[/THINK]", "</thinking>", "</reasoning>")
#: Most tokens that a chat template begins an answer with: `<|im_start|>assistant\n<think>\n\n</think>\n\n`.
_BEGINNING = 24


def openings(rows: Sequence[Trajectory], calls: Sequence[Call]) -> list[Opening]:
    """Every row of one rollout beyond the first of its role, with the reason why it was opened.

    Further choices of one call (n > 1) are not openings.
    """
    by_id = {call.meta.id: call for call in calls}
    seen: dict[str, _Earlier] = {}
    found = []
    for row in rows:
        earlier, first = seen.setdefault(row.role, _Earlier(by_id)), row.calls[0]
        if earlier.calls and first not in earlier.calls:
            found.append(_opening(row, earlier, by_id))
        earlier.calls |= dict.fromkeys(row.calls)
    return found


class _Earlier:
    """The calls of a role so far, and which messages each of them sampled."""

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self.calls: dict[str, None] = {}
        """Ids, in order."""
        self._by_id = calls
        self._read = 0
        self._made: dict[bytes, tuple[int, str]] = {}
        """What was sampled -> the last call that sampled it: its place and its id."""

    def find_sampler(self, call: Call) -> str:
        """The last of them that sampled a message which `call` holds; '' if none did."""
        for place, each in islice(enumerate(self.calls), self._read, None):
            known = {_key(message) for message in _messages(self._by_id[each])}
            made = {_key(message) for message in sampled_messages(self._by_id[each]) if any(_meaning(message))}
            self._made |= dict.fromkeys(made - known, (place, each))
        self._read = len(self.calls)
        held = (_key(each) for each in _messages(call) if each.get("role") == "assistant")
        return max((self._made[key] for key in held if key in self._made), default=(0, ""))[1]


def _opening(row: Trajectory, earlier: _Earlier, calls: Mapping[str, Call]) -> Opening:
    call = calls[row.calls[0]]
    if row.broke is not None:
        previous = row.broke.previous
        return Opening(row.role, call.meta.id, previous, _reason(row.broke.kind, calls[previous], call))
    # Not even the first prompt is shared, and yet what was sampled before may be in it: then the beginning was changed,
    # by the agent or by the template.
    previous = earlier.find_sampler(call)
    reason = _reason("beginning", calls[previous], call) if previous else Reason.CONVERSATION
    return Opening(row.role, call.meta.id, previous, reason)


def _reason(kind: str, previous: Call, call: Call) -> Reason:
    """Why `call` does not continue the row that `previous` ended; `kind`: how their ids differ, as in `Break`."""
    before, after = _read_request(previous), _read_request(call)
    if kind == "temperature":
        return Reason.TEMPERATURE
    if not (
        before.messages and after.messages
    ):  # text completions, or a request that cannot be read: only the ids count
        return {"branch": Reason.BRANCH, "sampled": Reason.NOT_KEPT}.get(kind, Reason.REWRITTEN)
    if before.tools != after.tools:
        return Reason.TOOLS
    if changed := _classify_history(before.messages, after.messages):
        return changed
    if kind == "beginning":  # the same messages were rendered differently
        return _classify_template(previous, call)
    found = _classify_answer(before.messages, after.messages, sampled_messages(previous))
    return _classify_template(previous, call) if found is Reason.TEMPLATE else found


def _classify_template(previous: Call, call: Call) -> Reason:
    """How the chat template rendered the same messages differently."""
    if any(_reasoning(made) or any(end in text_of(made) for end in _THOUGHT) for made in sampled_messages(previous)):
        return Reason.THINKING
    before, after = (np.frombuffer(each.prompt_ids, "<i4") for each in (previous, call))
    size = min(len(before), len(after))
    same = int((before[:size] != after[:size]).argmax()) if (before[:size] != after[:size]).any() else size
    return Reason.THINKING if 0 < len(before) - same <= _BEGINNING else Reason.TEMPLATE


def _classify_history(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Reason | None:
    """How the messages that both requests should share differ; None if they do not."""
    for one, other in zip(before, after, strict=False):
        if _visible_fields(one) != _visible_fields(other):
            both = one.get("role") == "assistant" == other.get("role")
            return Reason.REFORMATTED if both and _same_calls(one, other) else Reason.REWRITTEN
    return Reason.REWRITTEN if len(after) < len(before) else None


def _classify_answer(
    before: list[dict[str, Any]], after: list[dict[str, Any]], made: Sequence[Mapping[str, Any]]
) -> Reason:
    """How the sampled message came back after the messages that both share; the best of n > 1 choices counts."""
    if len(after) == len(before):
        return Reason.BRANCH
    ways = [_classify_message(each, after[len(before)]) for each in made]
    return min(ways, key=list(Reason).index, default=Reason.NOT_KEPT)


def _classify_message(made: Mapping[str, Any], answer: Mapping[str, Any]) -> Reason:
    """How a sampled message came back."""
    if answer.get("role") != "assistant" or text_of(answer) != text_of(made):
        return Reason.NOT_KEPT
    if _reasoning(made) and _reasoning(answer) != _reasoning(made):
        return Reason.NOT_KEPT
    if _visible_fields(made) == _visible_fields(answer):
        return Reason.TEMPLATE
    return Reason.REFORMATTED if _same_calls(made, answer) else Reason.NOT_KEPT


def _messages(call: Call) -> list[dict[str, Any]]:
    return _read_request(call).messages


def _key(message: Mapping[str, Any]) -> bytes:
    """A key that is the same for messages with the same meaning."""
    return msgspec.json.encode(_meaning(message), order="deterministic")


def _same_calls(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Both messages call the same tools with the same arguments, and say the same."""
    return bool(one.get("tool_calls")) and _meaning(one) == _meaning(other)


def _meaning(message: Mapping[str, Any]) -> tuple[str, list[Any]]:
    return text_of(message).strip(), [_tool_call_meaning(each) for each in message.get("tool_calls") or ()]


def _tool_call_meaning(tool_call: Any) -> tuple[Any, Any]:
    """Name and arguments of a tool call, read."""
    function = tool_call.get("function") if isinstance(tool_call, dict) else None
    if not isinstance(function, dict):
        return tool_call, None
    given = function.get("arguments")
    try:
        return function.get("name"), msgspec.json.decode(given) if isinstance(given, str) else given
    except (msgspec.DecodeError, RecursionError):
        return function.get("name"), given


def _visible_fields(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a template can see of a message. Empty fields count as absent."""
    calls = message.get("tool_calls") or []
    rest = {key: value for key, value in message.items() if value and key not in (*_IDLE, *_REASONING)}
    role = message.get("role") or "assistant"
    return role, text_of(message), [_tool_call_fields(each) for each in calls], _reasoning(message), rest


def _tool_call_fields(tool_call: Any) -> Any:
    if not isinstance(tool_call, dict) or not isinstance(tool_call.get("function"), dict):
        return tool_call
    function = tool_call["function"]
    return tool_call.get("id"), function.get("name"), function.get("arguments")


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, '' if it has none."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _reasoning(message: Mapping[str, Any]) -> str:
    return next((str(message[name]) for name in _REASONING if message.get(name)), "")


def sampled_messages(call: Call) -> list[dict[str, Any]]:
    """The messages of a call's choices."""
    found = []
    for choice in call.choices:
        try:
            message = msgspec.json.decode(choice.message)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(message, dict):
            found.append(message)
    return found


def request_texts(call: Call) -> list[str]:
    """The text of each message of a call's request; the prompt of a text completion."""
    request = _read_request(call)
    texts = [text_of(message) for message in request.messages]
    return texts or ([request.prompt] if isinstance(request.prompt, str) else [])


def request_turns(call: Call) -> list[tuple[str, str]]:
    """Role and text of each message with a text in a call's request."""
    said = [(str(each.get("role") or ""), text_of(each)) for each in _messages(call)]
    return [each for each in said if each[1]]


def _read_request(call: Call) -> _Request:
    try:
        return _requests.decode(call.request)
    except (msgspec.MsgspecError, RecursionError):
        return _Request()
