"""Role rollouts: what one role did in one rollout, as trajectories, its calls, and what it earned after each call.

A reward counts for the last call that began before it was given. A role that was not asked in a rollout also has
a role rollout, without calls, because what that rollout earned belongs to the baseline of the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_hub.rollout import Rollout
from lightning_hub.trajectories import rewards
from lightning_hub.trajectories.trajectory import TRUNCATED, Piece, Trajectory, merge
from lightning_hub.trajectories.transition import Transition, UnusableCall, transitions
from lightning_sdk.settings import Settings
from lightning_sdk.settings.groups import Credit, Length


class PlacedPiece(NamedTuple):
    """A piece of a role rollout, and where it belongs."""

    call: int
    """The place of its call among the role's calls."""
    row: int
    """Index of its trajectory."""
    piece: Piece


@dataclass(slots=True, eq=False, kw_only=True)
class RoleRollout:
    """What one role did in one rollout: S calls in R trajectories."""

    rollout: Rollout
    role: str
    credit: Credit
    trajectories: list[Trajectory]
    reward: float | None
    """Everything it earned, as a float32; None without a reward."""
    earned: NDArray[np.float64]
    """[S] what it earned after each call and before the next one."""
    before: float
    """What it earned before its first call, which counts for the rollout as a whole only."""
    trained: list[NDArray[np.bool_]] = field(default_factory=list)
    """[T] for each trajectory: which sampled tokens are trained on, see `Length`."""
    calls: dict[str, int] = field(default_factory=dict)
    """Id of each call -> its place in order."""
    charges: list[NDArray[np.float32]] = field(default_factory=list)
    """[T] for each trajectory: what each sampled token costs for leaving the reference model; empty if nothing."""
    silent: bool = False
    """The role made no trainable call, and is here only to be compared with."""

    def net_rewards(self) -> NDArray[np.float64]:
        """[S] what it earned after each call, less what the call's tokens cost."""
        net = self.earned.copy()
        if self.charges:
            for call, row, piece in self.pieces():
                net[call] -= self.charges[row][piece.start : piece.end].sum(dtype=np.float64)
        return net

    def pieces(self) -> Iterator[PlacedPiece]:
        """The pieces of all trajectories, in the order of the calls, then of choices."""
        found = [
            PlacedPiece(self.calls[piece.call], row, piece)
            for row, trajectory in enumerate(self.trajectories)
            for piece in trajectory.pieces
        ]
        yield from sorted(found, key=lambda each: (each.call, each.piece.choice))

    def count_sampled(self) -> int:
        """The number of sampled tokens."""
        return sum(int(each.mask.sum()) for each in self.trajectories)

    def is_truncated(self) -> bool:
        """Whether one of its completions ended at the token limit."""
        return any(piece.finish_reason == TRUNCATED for row in self.trajectories for piece in row.pieces)

    def spread(self, by_call: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        """[T] for each trajectory: the value of its call at each sampled token, 0 elsewhere."""
        spread = [np.zeros(len(each.tokens), np.float32) for each in self.trajectories]
        for call, row, piece in self.pieces():
            spread[row][piece.start : piece.end] = by_call[call]
        return spread


def role_rollouts(
    rollouts: Sequence[Rollout], settings: Settings, *, supervised: bool = False
) -> tuple[list[RoleRollout], list[str]]:
    """What each role that made a trainable call did in each rollout, and why calls were left out. `supervised` as in
    `transitions`.

    In the order of the rollouts, and in each in the order of the roles' first calls.
    """
    problems: list[str] = []
    found = [each for rollout in rollouts for each in _role_rollouts_in(rollout, settings, problems, supervised)]
    return found, problems


def silent_role_rollouts(
    rollouts: Sequence[Rollout], spoken: Sequence[RoleRollout], settings: Settings
) -> list[RoleRollout]:
    """A role rollout for each role of `spoken` and each rollout in which that role made no trainable call.

    Its reward is what counts for the role there; None if none was given, and none is made up.
    """
    there = {(each.rollout.id, each.role) for each in spoken}
    roles = dict.fromkeys(each.role for each in spoken)
    return [
        _silent_role_rollout(rollout, role, settings.credit_of(role))
        for role in roles
        for rollout in rollouts
        if (rollout.id, role) not in there
    ]


def _silent_role_rollout(rollout: Rollout, role: str, credit: Credit) -> RoleRollout:
    reward = rewards.total_reward(rollout, role, credit)
    return RoleRollout(
        rollout=rollout,
        role=role,
        credit=credit,
        trajectories=[],
        reward=reward,
        earned=np.zeros(0),
        before=reward or 0.0,
        silent=True,
    )


def _role_rollouts_in(
    rollout: Rollout, settings: Settings, problems: list[str], supervised: bool
) -> Iterator[RoleRollout]:
    made: dict[str, list[Transition]] = {}
    for call in rollout.calls:
        if not call.meta.trainable:
            continue
        of_role = made.setdefault(call.meta.role, [])
        try:
            of_role += transitions(call, supervised=supervised)
        except UnusableCall as error:
            problems.append(str(error))
    for role, of_role in made.items():
        rows = merge(of_role, rollout.id, apart=settings.length.rows == "call")
        yield _role_rollout(rollout, role, settings.credit_of(role), rows, settings.length)


def _role_rollout(rollout: Rollout, role: str, credit: Credit, rows: list[Trajectory], length: Length) -> RoleRollout:
    pieces = sorted({(piece.started_ns, piece.call) for row in rows for piece in row.pieces})
    given = rewards.rewards_for(rollout, role, credit)
    starts = [started for started, _ in pieces]
    earned, before = np.zeros(len(pieces)), 0.0
    for reward in given:
        call = bisect_right(starts, reward.time_ns) - 1
        if call < 0:
            before += reward.value
        else:
            earned[call] += reward.value
    role_rollout = RoleRollout(
        rollout=rollout,
        role=role,
        credit=credit,
        trajectories=rows,
        reward=float(np.float32(before + earned.sum())) if given else None,
        earned=earned,
        before=before,
        calls={call: place for place, (_, call) in enumerate(pieces)},
    )
    role_rollout.trained = _trained_masks(role_rollout, length)
    if role_rollout.calls and role_rollout.reward is not None:
        role_rollout.earned[-1] -= length_penalty(role_rollout.count_sampled(), length)
        role_rollout.reward = float(np.float32(before + role_rollout.earned.sum()))
    return role_rollout


def length_penalty(tokens: int, length: Length) -> float:
    """What a role loses for sampling this many tokens, from 0 to `length.penalty` (DAPO, arXiv:2503.14476, eq. 13)."""
    if not length.limit:
        return 0.0
    over = tokens - (length.limit - length.buffer)
    if not length.buffer:
        return length.penalty if over > 0 else 0.0
    return length.penalty * min(max(over / length.buffer, 0.0), 1.0)


def _trained_masks(role_rollout: RoleRollout, length: Length) -> list[NDArray[np.bool_]]:
    """[T] for each trajectory: its mask, without what is cut or left out for its length."""
    masks = [each.mask.copy() for each in role_rollout.trajectories]
    excluded = False
    for mask, row in zip(masks, role_rollout.trajectories, strict=True):
        if length.max_row and len(mask) > length.max_row:
            mask[length.max_row :] = False
            excluded |= length.long_rows == "exclude"
        for piece in row.pieces:
            if piece.finish_reason == TRUNCATED and length.truncated != "train":
                mask[piece.start : piece.end] = False
                excluded |= length.truncated == "exclude"
    return [np.zeros_like(mask) for mask in masks] if excluded else masks
