"""A rollout: one execution of an agent on a task, as the hub hands it out and as it comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lightning_hub import rollout_key
from lightning_sdk.prompts.candidate import Candidate
from lightning_sdk.trace.call import Call, Span, Status
from lightning_sdk.trace.scope import Endpoint

_KEY_SECONDS = 600.0
"""How long a rollout's key opens the engine beyond its timeout: a process may have stood still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One attempt at one rollout, leased to a runner."""

    id: str
    """Rollout id, 32 hex digits. The same for every attempt."""
    key: bytes
    """Secret of this attempt, 16 random bytes: events with another key do not count for it."""
    task_id: int
    """Number that depends on the task's content alone, so that it is the same in every list and every session."""
    task: dict[str, Any]
    group: str
    """Rollouts of one group are compared with each other."""
    mode: str
    """'train' or 'evaluate'."""
    attempt: int
    """From 1."""
    timeout: float
    """Seconds."""
    endpoint: Endpoint | None
    """Where trainable calls are sent; None: they go where the agent sends them."""
    sampling: dict[str, float]
    """Replaces the agent's own request fields in trainable calls, such as {"temperature": 1.0}; with `rollout_seed`
    each call gets its own `seed`, with `whole_distribution` nothing else shapes the distribution, and with
    `free_choice` no call of a tool is forced."""
    roles: tuple[str, ...]
    """Roles to train; empty: every role declared trainable."""
    candidate: Candidate | None = None
    """Other texts for some of the agent's prompts, for this rollout; None: all are as they are."""
    shows_marks: bool = False
    """Whether it reports the texts that `lightning.prompt` marks while it runs."""
    metered: bool = False
    """Whether the hub is asked before each of its requests."""

    def as_message(self) -> dict[str, Any]:
        """What a runner gets, as plain data."""
        return {
            "id": self.id,
            "key": self.key,
            "task_id": self.task_id,
            "task": self.task,
            "group": self.group,
            "mode": self.mode,
            "attempt": self.attempt,
            "timeout": self.timeout,
            "sampling": self.sampling,
            "roles": list(self.roles),
            "endpoint": None if self.endpoint is None else self._endpoint(self.endpoint),
            **({} if self.candidate is None else {"candidate": self.candidate.as_message()}),
            **{name: True for name in ("metered", "shows_marks") if getattr(self, name)},
        }

    def _endpoint(self, endpoint: Endpoint) -> dict[str, str]:
        """With the key that opens the engine for this attempt."""
        key = endpoint.key
        if endpoint.divisible:
            key = rollout_key.derive(key, self.id, self.timeout + _KEY_SECONDS)
        return {"url": endpoint.url, "model": endpoint.model, "key": key}


class EarnedReward(NamedTuple):
    """One number that somebody gave: `emit_reward` inside, or the reward function at the end."""

    role: str
    """Who earned it; '' for the whole rollout."""
    name: str
    """What it measures: the name of the reward function, or what `emit_reward` was told."""
    value: float
    """A float32, finite."""
    time_ns: int
    """When it was given, Unix time in nanoseconds: after which calls."""
    why: str = ""
    """Its reason in words, for people and for reflection: no number depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A finished rollout: the last attempt's status, rewards and spans."""

    id: str
    task_id: int
    group: str
    mode: str
    attempt: int
    status: Status
    error: str
    """Why the status is not ok, with the class of what was raised; '' if it is ok."""
    seconds: float
    rewards: tuple[EarnedReward, ...] = ()
    """In the order in which they were given."""
    calls: tuple[Call, ...] = ()
    """In the order in which they started."""
    spans: tuple[Span, ...] = ()
    answer: str = ""
    """What the agent gave back, as text for people, cut."""

    def with_rewards(self, rewards: tuple[EarnedReward, ...]) -> Rollout:
        """The same rollout with other rewards."""
        return replace(self, rewards=rewards)
