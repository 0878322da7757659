"""A part: what one role did in one rollout, as trajectories, the steps it took, and what it earned after each.

A step is one call of the role. What was earned counts for the step whose call was the last to begin before. A role that
was not asked has a part too, without steps: what the rollout came to belongs to the baseline of those that were.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories import rewards
from lightning_hub.trajectories.trajectory import TRUNCATED, Piece, Trajectory, merge
from lightning_hub.trajectories.transition import Transition, UnusableCall, transitions
from lightning_sdk.settings import Settings
from lightning_sdk.settings.groups import Credit, Length


@dataclass(slots=True, eq=False)
class Part:
    """What one role did in one rollout: S steps in R trajectories."""

    rollout: Rollout
    role: str
    credit: Credit
    trajectories: list[Trajectory]
    reward: float | None
    """All that it earned, a float32; None if nobody rewarded it."""
    earned: NDArray[np.float64]
    """[S] what it earned after each step and before the next one."""
    before: float
    """What it earned before its first step, which counts for the rollout as a whole only."""
    trained: list[NDArray[np.bool_]] = field(default_factory=list)
    """[T] of each trajectory: which sampled tokens are trained on, see `Length`."""
    calls: dict[str, int] = field(default_factory=dict)
    """Call -> its step."""
    charges: list[NDArray[np.float32]] = field(default_factory=list)
    """[T] of each trajectory: what each sampled token costs for leaving the reference model; empty if nothing."""
    silent: bool = False
    """The role made no trainable call: the part is there to be compared with."""

    @property
    def steps(self) -> int:
        return len(self.earned)

    def net(self) -> NDArray[np.float64]:
        """[S] what it earned after each step, less what the step's tokens cost."""
        net = self.earned.copy()
        if self.charges:
            for step, place, piece in self.pieces():
                net[step] -= self.charges[place][piece.start : piece.end].sum(dtype=np.float64)
        return net

    def pieces(self) -> Iterator[tuple[int, int, Piece]]:
        """Step, index of the trajectory, piece: in the order of steps, then of choices."""
        found = [
            (self.calls[piece.call], place, piece)
            for place, trajectory in enumerate(self.trajectories)
            for piece in trajectory.pieces
        ]
        yield from sorted(found, key=lambda each: (each[0], each[2].choice))

    def sampled(self) -> int:
        """Sampled tokens."""
        return sum(int(each.mask.sum()) for each in self.trajectories)

    def is_truncated(self) -> bool:
        """Whether one of its completions ended at the token limit."""
        return any(piece.finish_reason == TRUNCATED for row in self.trajectories for piece in row.pieces)

    def spread(self, by_step: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """[T] for each trajectory: at each sampled token the value of its step, 0 elsewhere."""
        spread = [np.zeros(len(each.tokens), np.float32) for each in self.trajectories]
        for step, place, piece in self.pieces():
            spread[place][piece.start : piece.end] = by_step[step]
        return spread


def parts(rollouts: Sequence[Rollout], settings: Settings) -> tuple[list[Part], list[str]]:
    """The parts of all roles that made a trainable call, and why calls were left out.

    In the order of the rollouts, and in each in the order of the roles' first calls.
    """
    problems: list[str] = []
    return [part for rollout in rollouts for part in _parts(rollout, settings, problems)], problems


def silent_parts(rollouts: Sequence[Rollout], spoken: Sequence[Part], settings: Settings) -> list[Part]:
    """A part for each role of `spoken` and each rollout in which that role made no trainable call.

    Its reward is what counts for the role there: None where nobody gave one, which nothing is made up for.
    """
    there = {(part.rollout.id, part.role) for part in spoken}
    roles = dict.fromkeys(part.role for part in spoken)
    return [
        _silent_part(rollout, role, settings.credit_of(role))
        for role in roles
        for rollout in rollouts
        if (rollout.id, role) not in there
    ]


def _silent_part(rollout: Rollout, role: str, credit: Credit) -> Part:
    reward = rewards.earned(rollout, role, credit)
    return Part(rollout, role, credit, [], reward, np.zeros(0), reward or 0.0, silent=True)


def _parts(rollout: Rollout, settings: Settings, problems: list[str]) -> Iterator[Part]:
    made: dict[str, list[Transition]] = {}
    for call in rollout.calls:
        if not call.meta.trainable:
            continue
        of_role = made.setdefault(call.meta.role, [])
        try:
            of_role += transitions(call)
        except UnusableCall as error:
            problems.append(str(error))
    for role, of_role in made.items():
        rows = merge(of_role, rollout.id, apart=settings.length.rows == "call")
        yield _part(rollout, role, settings.credit_of(role), rows, settings.length)


def _part(rollout: Rollout, role: str, credit: Credit, rows: list[Trajectory], length: Length) -> Part:
    pieces = sorted({(piece.started_ns, piece.call) for row in rows for piece in row.pieces})
    given = rewards.given(rollout, role, credit)
    starts = [started for started, _ in pieces]
    earned, before = np.zeros(len(pieces)), 0.0
    for reward in given:
        step = bisect_right(starts, reward.time_ns) - 1
        if step < 0:
            before += reward.value
        else:
            earned[step] += reward.value
    part = Part(
        rollout, role, credit, rows, float(np.float32(before + earned.sum())) if given else None, earned, before,
        calls={call: step for step, (_, call) in enumerate(pieces)},
    )  # fmt: skip
    part.trained = _trained(part, length)
    if part.steps and part.reward is not None:
        part.earned[-1] -= overlong(part.sampled(), length)
        part.reward = float(np.float32(before + part.earned.sum()))
    return part


def overlong(tokens: int, length: Length) -> float:
    """What a role loses for so many sampled tokens, 0 to `length.penalty` (DAPO, arXiv:2503.14476, eq. 13)."""
    if not length.limit:
        return 0.0
    over = tokens - (length.limit - length.buffer)
    if not length.buffer:
        return length.penalty if over > 0 else 0.0
    return length.penalty * min(max(over / length.buffer, 0.0), 1.0)


def _trained(part: Part, length: Length) -> list[NDArray[np.bool_]]:
    """[T] of each trajectory: the mask without what is cut or left out for its length."""
    masks = [each.mask.copy() for each in part.trajectories]
    excluded = False
    for mask, row in zip(masks, part.trajectories, strict=True):
        if length.max_row and len(mask) > length.max_row:
            mask[length.max_row :] = False
            excluded |= length.long_rows == "exclude"
        for piece in row.pieces:
            if piece.finish_reason == TRUNCATED and length.truncated != "train":
                mask[piece.start : piece.end] = False
                excluded |= length.truncated == "exclude"
    return [np.zeros_like(mask) for mask in masks] if excluded else masks
