"""Which rollouts a file for people carries: the most telling ones first, each beside the one to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from lightning_dashboard.rollout_filter import Selection

WORDS = (
    "the best, the worst and the newest of each role and the newest that failed, each with the one of its group whose "
    "reward differs most"
)
_LIVE = ("queued", "running")


def in_order_of_interest(selection: Selection) -> Iterator[int]:
    """The selected places, as `WORDS` says; each once."""
    known = set[int]()
    mates = _Mates(selection)
    for turn in zip_longest(*_rankings(selection)):
        for place in (each for each in turn if each is not None):
            for each in (int(place), mates.most_different(int(place))):
                if each is not None and each not in known:
                    known.add(each)
                    yield each
    yield from (place for place in selection.places.tolist() if place not in known)


def _rankings(selection: Selection) -> list[list[int]]:
    columns, places = selection.columns, selection.places
    newest = -np.nan_to_num(columns.started)
    found = []
    roles = [selection.role] if selection.role else columns.rewarded_roles or [""]
    for role in roles:
        scores = columns.scores(role)
        known = places[np.isfinite(scores[places])]
        for order in (-scores[known], scores[known], newest[known]):
            found.append(known[np.lexsort((newest[known], order))].tolist())
    for status in np.unique(columns.statuses[places].astype(str)).tolist():
        if status not in {"ok", *_LIVE}:
            failed = places[columns.statuses[places] == status]
            found.append(failed[np.argsort(newest[failed], kind="stable")].tolist())
    return found


class _Mates:
    """The selected rollouts of each group."""

    def __init__(self, selection: Selection) -> None:
        numbers = selection.columns.group_numbers[selection.places]
        order = np.argsort(numbers, kind="stable")
        self._numbers, self._places = numbers[order], selection.places[order]
        self._columns, self._scores = selection.columns, selection.scores

    def most_different(self, place: int) -> int | None:
        """The other one of its group whose reward lies farthest from its own; None without one."""
        number = self._columns.group_numbers[place]
        mates: NDArray[np.int64] = self._places[
            np.searchsorted(self._numbers, number) : np.searchsorted(self._numbers, number, "right")
        ]
        distances = np.abs(self._scores[mates] - np.nan_to_num(self._scores[place]))
        distances[(mates == place) | ~np.isfinite(distances)] = -1.0
        return int(mates[np.argmax(distances)]) if len(mates) and distances.max() >= 0 else None
