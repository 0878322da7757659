"""A trajectory: transitions of one role merged by lineage into one token sequence with a mask of what was sampled.

The invariant: each sampled token is marked in exactly one trajectory, at the same position and after the same ids as
when it was sampled. A call joins the longest open sequence that is an exact prefix of its prompt ids, so a conversation
is one row however many calls it took; branches, retries and further choices open new rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_hub.backend import Constrained
from lightning_hub.trajectories.open_rows import ID_BYTES, OpenRow, OpenRows, Prompt, pack, read_prompt, shared_length
from lightning_hub.trajectories.transition import Transition

#: The finish reason of a completion that the token limit ended.
TRUNCATED = "length"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The tokens of one choice of one call, in a trajectory."""

    call: str
    choice: int
    start: int
    """Position of the first token."""
    end: int
    """Position after the last token."""
    started_ns: int
    """When the call was made."""
    finish_reason: str
    constraint: str = ""
    """What the tokens were limited to, as in `Transition.constraint`."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
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
    """What was sampled here, in order; the mask is True inside these and nowhere else."""
    broke: Break | None = None
    """Why this row does not continue another one that nearly fitted."""

    @property
    def calls(self) -> tuple[str, ...]:
        """Ids of the calls whose tokens are sampled here, in order."""
        return tuple(piece.call for piece in self.pieces)

    def constraints(self, end: int) -> tuple[Constrained, ...]:
        """The constrained pieces of its first `end` tokens."""
        return tuple(
            Constrained(piece.start, min(piece.end, end), piece.constraint)
            for piece in self.pieces
            if piece.constraint and piece.start < end
        )


def merge(transitions: Sequence[Transition], rollout: str = "", *, apart: bool = False) -> list[Trajectory]:
    """The trajectories of one rollout's transitions, in the order in which they began; `apart`: a row for each.

    The set of trajectories does not depend on the order of `transitions`: a sequence can only be continued by a longer
    prompt, so they are merged by the length of their prompts.
    """
    if apart:
        return [_close(_open_row(index, each), rollout) for index, each in enumerate(transitions)]
    roles: dict[str, OpenRows] = {}
    broke: dict[int, Break | None] = {}
    packed = [pack(each.prompt_ids) for each in transitions]
    order = sorted(
        range(len(transitions)),
        key=lambda i: (len(packed[i]), packed[i], transitions[i].call, transitions[i].choice),
    )
    for index in order:
        transition, prompt = transitions[index], read_prompt(packed[index])
        rows = roles.setdefault(transition.role, OpenRows())
        row = rows.find_prefix(prompt, transition.temperature)
        if row is None:
            row = OpenRow(index)
            broke[id(row)] = _break(rows, transition, prompt)
        row.first = min(row.first, index)
        rows.put(row, transition, prompt)
    found = sorted((row for rows in roles.values() for row in rows.rows), key=lambda row: row.first)
    return [_close(row, rollout, broke[id(row)]) for row in found]


def _open_row(index: int, transition: Transition) -> OpenRow:
    row = OpenRow(index)
    row.add(transition, pack(transition.prompt_ids))
    return row


def _break(rows: OpenRows, transition: Transition, prompt: Prompt) -> Break | None:
    """What kept the call from the row that it shares most with; None if they share no sampled token's place."""
    row = rows.find_nearest(prompt, transition.call)
    if row is None:
        return None
    position = shared_length(row.ids, prompt.ids)
    return Break(transition.call, row.transitions[-1].call, position, _kind(row, position, len(prompt)))


def _kind(row: OpenRow, position: int, prompt_length: int) -> str:
    if position == len(row.ids) // ID_BYTES:
        return "temperature"
    if position == prompt_length:
        return "branch"
    ends = (
        start + len(transition.completion_ids) for start, transition in zip(row.starts, row.transitions, strict=True)
    )
    inside = any(start <= position < end for start, end in zip(row.starts, ends, strict=True))
    return "sampled" if inside else "context"


def _close(row: OpenRow, rollout: str, broke: Break | None = None) -> Trajectory:
    tokens = np.frombuffer(row.ids, "<i4")
    mask = np.zeros(len(tokens), np.bool_)
    logprobs = np.zeros(len(tokens), np.float32)
    versions = np.full(len(tokens), -1, np.int32)
    pieces = []
    for start, transition in zip(row.starts, row.transitions, strict=True):
        end = start + len(transition.completion_ids)
        pieces.append(
            Piece(
                call=transition.call,
                choice=transition.choice,
                start=start,
                end=end,
                started_ns=transition.started_ns,
                finish_reason=transition.finish_reason,
                constraint=transition.constraint,
            )
        )
        sampled = slice(start, end)
        mask[sampled] = True
        logprobs[sampled] = transition.logprobs
        versions[sampled] = transition.versions
    first = row.transitions[0]
    return Trajectory(
        rollout=rollout,
        role=first.role,
        tokens=tokens,
        mask=mask,
        logprobs=logprobs,
        versions=versions,
        temperature=first.temperature,
        pieces=tuple(pieces),
        broke=broke,
    )
