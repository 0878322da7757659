"""Calls as an engine would have answered them, for the tests beside this file."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call, CallMeta, Choice, Status

Sampled = tuple[Sequence[int], Sequence[float]]
"""Ids and log-probs of one completion."""


def call(
    number: int,
    prompt: Sequence[int],
    *choices: Sampled,
    role: str = "solver",
    trainable: bool = True,
    status: str = "ok",
    temperature: float | None = 1.0,
    version: int = 3,
    problem: str = "",
    finish_reason: str = "stop",
) -> Call:
    """A decoded call with these ids; further choices make it an n > 1 call."""
    sampled = sum(len(ids) for ids, _ in choices)
    request: dict[str, object] = {"model": "spark", "messages": [], "temperature": temperature}
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
            200,
            False,
            "/v1/chat/completions",
            "openai",
        ),
        request=json.dumps(request).encode(),
        response_id=f"chatcmpl-{number}",
        model="spark",
        prompt_ids=pack_ints(prompt),
        choices=tuple(
            Choice(
                index=index,
                message=b"{}",
                finish_reason=finish_reason,
                token_ids=pack_ints(ids),
                logprobs=pack_floats(logprobs),
                versions=[[version, len(ids)]],
            )
            for index, (ids, logprobs) in enumerate(choices)
        ),
        input_tokens=len(prompt),
        output_tokens=sampled,
        problem=problem,
    )


def sample(*ids: int) -> Sampled:
    """These ids, with a log-prob that tells them apart."""
    return ids, [-each / 100 for each in ids]


def rollout(
    number: int,
    *calls: Call,
    rewards: dict[str, float] | None = None,
    group: str = "task-0",
    status: Status = Status.OK,
) -> Rollout:
    """A finished rollout of these calls, with reward 0 at its end unless told otherwise."""
    end = 1 + max((call.meta.ended_ns for call in calls), default=0)
    given = {"": 0.0} if rewards is None else rewards
    return Rollout(
        id=f"{number:032x}",
        task_id=0,
        group=group,
        mode="train",
        attempt=1,
        status=status,
        error="",
        seconds=1.0,
        rewards=tuple(EarnedReward(role, "final", value, end) for role, value in given.items()),
        calls=calls,
    )
