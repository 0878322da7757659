"""Rows of the store: what goes into a table and what comes out of one, each in the order of the store's statements."""

from __future__ import annotations

from typing import NamedTuple

from lightning_hub.storage.attempts import StoredAttempt


class BeginRow(NamedTuple):
    """A running attempt."""

    key: bytes
    id: str
    """The rollout's."""
    attempt: int
    mode: str
    task_id: int
    """-1 for a rollout that no lease created."""
    task: str
    """As JSON."""
    group: str
    runner: str
    """'' for a rollout that no lease created."""
    started: float
    """Unix time in seconds."""


class EndRow(NamedTuple):
    """How an attempt ended."""

    status: str
    error: str
    output: str
    """The answer as it is shown to people."""
    ended: float
    """Unix time in seconds."""
    key: bytes


class AnswerRow(NamedTuple):
    """The answer of an attempt."""

    answer: str
    """As JSON; '' if it was not kept."""
    unkept: str
    """Why it was not."""
    key: bytes


class RewardRow(NamedTuple):
    """A number that an attempt was given."""

    key: bytes
    role: str
    name: str
    value: float | None
    """A float32; None if it was refused."""
    refused: str
    """Why it was, '' if it was not."""
    span: str
    """Id of the span that it was given in."""
    time_ns: int
    by_function: bool
    """Whether a reward function gave it."""
    why: str
    """Its reason in words, '' if none was given."""


class RescoredRow(NamedTuple):
    """A number that a re-scoring gave."""

    key: bytes
    role: str
    name: str
    value: float
    time_ns: int
    why: str


class ExtentRow(NamedTuple):
    """Where events of an attempt are in the log."""

    key: bytes
    positions: bytes
    """Packed pairs of position and length (uint64)."""


class StoredReward(NamedTuple):
    """A number that counts."""

    key: bytes
    role: str
    name: str
    value: float
    time_ns: int
    by_function: int
    """1 if a reward function gave it, else 0."""
    rescoring: int
    """The re-scoring that gave it; 0: the run itself."""
    why: str


class StoredAnswer(NamedTuple):
    """An attempt that is over, with what it was asked and what it answered."""

    attempt: StoredAttempt
    task: str
    """As JSON."""
    answer: str
    """As JSON; '' if it was not kept."""
    unkept: str
    """Why it was not."""


class RescoringRow(NamedTuple):
    """A re-scoring that was written."""

    number: int
    rewards: str
    """Names and weights of the reward functions, as JSON."""
