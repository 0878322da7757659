"""Calls and rollouts as the collector brings them, with ids that are those of their text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call, CallMeta, Choice, Span, Status

Message = dict[str, Any]
SYSTEM: Message = {"role": "system", "content": "Be brief."}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def tool_call(arguments: str, identity: str = "call_1") -> Message:
    function = {"name": "search", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": identity, "type": "function", "function": function}],
    }


def call(
    number: int,
    messages: list[Message] | None = None,
    answer: Message | None = None,
    *,
    ids: list[int] | None = None,
    sampled: list[int] | None = None,
    role: str = "solver",
    trainable: bool = True,
    status: str = "ok",
    http_status: int = 200,
    problem: str = "",
    temperature: float = 1.0,
    tools: list[Any] | None = None,
) -> Call:
    """A decoded call. Its ids are those of its messages' text unless they are given."""
    messages = messages or [user("2 + 3?")]
    answer = answer or assistant("5")
    prompt = ids if ids is not None else [letter for message in messages for letter in tokens(message)]
    drawn = sampled if sampled is not None else tokens(answer)
    request: dict[str, Any] = {"model": "spark", "messages": messages, "temperature": temperature}
    return Call(
        meta=CallMeta(
            f"{number:016x}",
            "",
            role,
            trainable,
            number,
            number + 1,
            status,
            "",
            http_status,
            False,
            "/v1/chat/completions",
            "openai",
        ),
        request=json.dumps(request | ({"tools": tools} if tools else {})).encode(),
        response_id=f"chatcmpl-{number}",
        model="spark",
        prompt_ids=pack_ints(prompt),
        choices=(
            Choice(
                index=0,
                message=json.dumps(answer).encode(),
                finish_reason="stop",
                token_ids=pack_ints(drawn),
                logprobs=pack_floats([-0.5] * len(drawn)),
                versions=[],
            ),
        ),
        input_tokens=len(prompt),
        output_tokens=len(drawn),
        problem=problem,
    )


def tokens(message: Message) -> list[int]:
    """What a template that keeps every turn as it was would make of a message, one id a letter."""
    spoken = (message.get("content") or "") + "".join(
        each["id"] + each["function"]["arguments"] for each in message.get("tool_calls", [])
    )
    return [1000 + len(message["role"]), *map(ord, spoken), 2000]


def span(name: str, attributes: dict[str, Any] | None = None, role: str = "", status: str = "ok") -> Span:
    """A span at the top of a rollout."""
    return Span(
        id="a",
        parent="",
        name=name,
        role=role,
        started_ns=1,
        ended_ns=2,
        status=status,
        error="",
        attributes=attributes or {},
    )


def rollout(
    number: int, *calls: Call, rewards: dict[str, float] | None = None, group: str = "1-0", **more: Any
) -> Rollout:
    values: dict[str, Any] = {"task_id": 0, "mode": "train", "status": Status.OK, "error": "", "spans": (), **more}
    given = {"": float(number % 2)} if rewards is None else rewards
    return Rollout(
        id=f"{number:032x}",
        group=group,
        attempt=1,
        seconds=1.0,
        calls=calls,
        rewards=tuple(EarnedReward(role, "final", float(np.float32(value)), 10) for role, value in given.items()),
        **values,
    )
