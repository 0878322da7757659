"""Rollouts with a candidate: the message that a hub hands out, and a scope in which one is being run."""

from collections.abc import Callable
from typing import Any, TypeVar

import lightning_sdk as lightning
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope

R = TypeVar("R")
OLD, NEW = "You are a helpful writer.", "You are a writer of few words."


def assignment(candidate: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """What the hub hands out."""
    given = {} if candidate is None else {"candidate": candidate}
    return {
        "id": "0" * 32,
        "key": bytes(16),
        "task": {"text": "abc"},
        "endpoint": None,
        "sampling": {},
        "roles": [],
        "timeout": 20.0,
        **given,
        **more,
    }


def with_candidate(act: Callable[[], R], candidate: Candidate | None, endpoint: Endpoint | None = None) -> R:
    """`act` inside a rollout of this candidate, spoken by a role that is trained where there is an endpoint."""
    rollout = RolloutScope("0" * 32, bytes(16), endpoint, candidate=candidate)
    with use_scope(Scope(rollout=rollout)):
        return lightning.agent(role="writer", trainable=True)(act)()
