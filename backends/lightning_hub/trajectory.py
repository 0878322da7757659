"""A trajectory: transitions of one role merged by lineage into one token sequence with a mask of what was sampled.

The invariant: each sampled token is marked in exactly one trajectory, at the position and after the very ids at which
it was sampled. A call joins the longest open sequence that is an exact prefix of its prompt ids, so a conversation is
one row however many calls it took; branches, retries and further choices open rows of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_hub.transition import Transition

#: The finish reason of a completion that the token limit ended.
TRUNCATED = "length"
_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Break:
    """Why a call opened a row although it nearly continued another one."""

    call: str
    """The call that opened the row."""
    previous: str
    """The last call of the row that it nearly continued."""
    position: int
    """Index of the first token at which the two differ."""
    kind: str
    """'sampled': what the model had sampled comes back as other ids (the agent edited or re-encoded it);
    'context': earlier context was edited; 'branch': the prompt ends where the row goes on (a retry or a second try);
    'temperature': all ids agree, but the row was sampled at another temperature."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of one choice of one call, in a trajectory."""

    call: str
    choice: int
    start: int
    """Position of the first one."""
    end: int
    """Position behind the last one."""
    started_ns: int
    """When the call was made."""
    finish_reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A sequence of T tokens and which of them were sampled."""

    rollout: str
    """Rollout id."""
    role: str
    tokens: NDArray[np.int32]
    """[T]"""
    mask: NDArray[np.bool_]
    """[T] True at sampled tokens only; False at position 0."""
    logprobs: NDArray[np.float32]
    """[T] sampler's log-probability where the mask is True, else 0."""
    versions: NDArray[np.int32]
    """[T] version that sampled the token where the mask is True, else -1."""
    temperature: float
    pieces: tuple[Piece, ...]
    """What was sampled here, in order; the mask is True inside of them and nowhere else."""
    broke: Break | None = None
    """Why this row was not joined to another one that nearly fitted."""

    @property
    def calls(self) -> tuple[str, ...]:
        """Ids of the calls whose tokens are sampled here, in order."""
        return tuple(piece.call for piece in self.pieces)


@dataclass(slots=True)
class _Open:
    """A sequence that later calls may still continue."""

    first: int
    """Smallest index of its transitions in the input: rows come out in the order in which they began."""
    ids: bytes
    parts: list[Transition]
    broke: Break | None = None
    starts: list[int] = field(default_factory=list)
    """Position of each part's first sampled token."""

    def add(self, transition: Transition, prompt: bytes) -> None:
        self.starts.append(len(prompt) // _ID_BYTES)
        self.parts.append(transition)
        self.ids = prompt + _packed(transition.completion_ids)


def merge(transitions: Sequence[Transition], rollout: str = "", *, apart: bool = False) -> list[Trajectory]:
    """The trajectories of one rollout's transitions, in the order in which they began; `apart`: a row for each.

    The set of trajectories does not depend on the order of `transitions`: a sequence can only be continued by a longer
    prompt, so they are merged by the length of their prompts.
    """
    open_: dict[str, list[_Open]] = {}
    packed = [_packed(each.prompt_ids) for each in transitions]
    order = sorted(
        range(len(transitions)),
        key=lambda i: (len(packed[i]), packed[i], transitions[i].call, transitions[i].choice),
    )
    for index in order:
        transition, prompt = transitions[index], packed[index]
        rows = open_.setdefault(transition.role, [])
        row = None if apart else _continued(rows, transition, prompt)
        if row is None:
            row = _Open(index, b"", [], None if apart else _break(rows, transition, prompt))
            rows.append(row)
        row.first = min(row.first, index)
        row.add(transition, prompt)
    return [_close(row, rollout) for row in sorted((r for rows in open_.values() for r in rows), key=lambda r: r.first)]


def _continued(rows: list[_Open], transition: Transition, prompt: bytes) -> _Open | None:
    """The longest row that is an exact prefix of the prompt; a row has one temperature."""
    fits = [r for r in rows if prompt.startswith(r.ids) and r.parts[-1].temperature == transition.temperature]
    return max(fits, key=lambda row: len(row.ids), default=None)


def _break(rows: list[_Open], transition: Transition, prompt: bytes) -> Break | None:
    """What kept the call from the row that it shares most with; None if it shares no sampled token's place."""
    nearest, shared = None, 0
    for row in rows:
        same = _shared(row.ids, prompt)
        # Sharing less than the first prompt is another conversation; sharing the call is its other choice.
        if same >= max(shared, row.starts[0]) and row.parts[-1].call != transition.call:
            nearest, shared = row, same
    if nearest is None:
        return None
    return Break(transition.call, nearest.parts[-1].call, shared, _kind(nearest, shared, len(prompt) // _ID_BYTES))


def _kind(row: _Open, position: int, prompt_length: int) -> str:
    if position == len(row.ids) // _ID_BYTES:
        return "temperature"
    if position == prompt_length:
        return "branch"
    ends = (start + len(part.completion_ids) for start, part in zip(row.starts, row.parts, strict=True))
    inside = any(start <= position < end for start, end in zip(row.starts, ends, strict=True))
    return "sampled" if inside else "context"


def _shared(one: bytes, other: bytes) -> int:
    """How many leading ids are the same."""
    length = min(len(one), len(other))
    differs = np.frombuffer(one[:length], "<i4") != np.frombuffer(other[:length], "<i4")
    return int(differs.argmax()) if differs.any() else length // _ID_BYTES


def _close(row: _Open, rollout: str) -> Trajectory:
    tokens = np.frombuffer(row.ids, "<i4")
    mask = np.zeros(len(tokens), np.bool_)
    logprobs = np.zeros(len(tokens), np.float32)
    versions = np.full(len(tokens), -1, np.int32)
    pieces = []
    for start, part in zip(row.starts, row.parts, strict=True):
        end = start + len(part.completion_ids)
        pieces.append(Piece(part.call, part.choice, start, end, part.started_ns, part.finish_reason))
        sampled = slice(start, end)
        mask[sampled] = True
        logprobs[sampled] = part.logprobs
        versions[sampled] = part.versions
    first = row.parts[0]
    return Trajectory(
        rollout, first.role, tokens, mask, logprobs, versions, first.temperature, tuple(pieces), row.broke
    )


def _packed(ids: NDArray[np.int32]) -> bytes:
    return np.ascontiguousarray(ids, "<i4").tobytes()
