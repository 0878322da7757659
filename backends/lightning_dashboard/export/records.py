"""The rollouts that are exported, one after the other, each with its calls and its credit.

They are read in the batches that credit is computed from, a group or a step, so that memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_dashboard.attempt_reader import AttemptReader, ReadAttempt
from lightning_dashboard.credit_reader import ReadCredit, RoleCredit, as_rollout, compared_places, read_rollouts
from lightning_dashboard.rollout_filter import Selection
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.views.rollouts import describe
from lightning_hub.credit.advantages import needs_whole_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRollout:
    """One attempt at a rollout with everything that is known of it."""

    run: RunReader
    facts: dict[str, Any]
    """As in the page's table of rollouts: id, step, status, what the chosen role earned."""
    role_rewards: dict[str, float]
    """Role -> what it earned, of roles with rewards of their own."""
    read: ReadAttempt
    credit: Sequence[RoleCredit]
    """Of each role that made a trained call."""


def read_exported(run: RunReader, selection: Selection) -> Iterator[ExportedRollout]:
    """The selected rollouts, in the order in which their groups or steps began."""
    columns = selection.columns
    settings = columns.settings
    whole = any(needs_whole_batch(settings, each) for each in settings.credits())
    last = columns.last_attempts()
    if not len(selection.places):
        return
    with AttemptReader(run) as reader:
        for places in _batches(selection, whole):
            reads = {place: reader.read(columns.ids[place], int(columns.attempts[place])) for place in places}
            own = {place: as_rollout(read) for place, read in reads.items()}
            compared = {columns.ids[place]: own[place] for place in places if last[place] and not reads[place].missing}
            others = compared_places(columns, places[0], whole) if columns.modes[places[0]] == "train" else []
            shared = [*compared.values(), *read_rollouts(run, columns, others, compared.keys())]
            credit = ReadCredit(run, shared)
            for place in places:
                # An attempt that was repeated is credited as if it had been the last one.
                alone = [own[place], *(each for each in shared if each.id != own[place].id)]
                yield ExportedRollout(
                    run=run,
                    facts=describe(columns, place, selection.scores),
                    role_rewards=_role_rewards(selection, place),
                    read=reads[place],
                    credit=(credit if last[place] else ReadCredit(run, alone)).of(own[place]),
                )


def _role_rewards(selection: Selection, place: int) -> dict[str, float]:
    columns = selection.columns
    earned = {role: float(columns.scores(role)[place]) for role in columns.rewarded_roles}
    return {role: value for role, value in earned.items() if np.isfinite(value)}


def _batches(selection: Selection, whole: bool) -> list[list[int]]:
    """The selected places, those together that are compared with each other."""
    columns, places = selection.columns, selection.places
    places = places[np.argsort(np.nan_to_num(columns.started[places]), kind="stable")]
    by_step = whole & (columns.steps[places] >= 0)
    names = np.where(by_step, -1 - columns.steps[places], columns.group_numbers[places])
    found: dict[int, list[int]] = {}
    for place, name in zip(places.tolist(), names.tolist(), strict=True):
        found.setdefault(name, []).append(place)
    return list(found.values())
