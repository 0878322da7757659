"""Re-scoring, the store's side: hands out stored answers, takes new numbers for them, compares and writes them down.

Run as a program by `lightning_sdk.commands.rescore`, which has the reward functions: one JSON line in, one out, until
it has asked for everything and for the result. A `RescoringRequest` -> {"rollouts"};
{"scored": [ScoredAnswer], "next": count} -> [AnswerToScore]; {"scored", "result": true} -> a `RescoringResult`. An
error is {"error": [class, message]}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from lightning_hub.replay import comparison
from lightning_hub.replay.comparison import RescoredRollout
from lightning_hub.replay.stored_run import StoredRollout, StoredRun, settle_locked, with_weights
from lightning_hub.rollout import EarnedReward
from lightning_hub.storage.lock import lock_folder
from lightning_hub.storage.rows import RescoredRow
from lightning_hub.storage.store import Store
from lightning_sdk.errors import HubError, LightningError
from lightning_sdk.results.rescoring import AnswerToScore, RescoringRequest, RescoringResult, ScoredAnswer
from lightning_sdk.trace.call import Status
from lightning_sdk.trace.structs import read_struct

#: Different reasons that are listed; the others are counted together.
_REASONS = 12


class StoreRescoring:
    """One re-scoring of one run."""

    def __init__(self, wanted: RescoringRequest) -> None:
        """HubError if it is to be written and a hub has the folder; SettingError if nothing is stored there."""
        folder, self._wanted = Path(wanted.run), wanted
        self._lock = _lock(folder) if wanted.write and (folder / "hub.sqlite").is_file() else -1
        if self._lock >= 0:
            settle_locked(folder)
        self._run = StoredRun(folder)
        self._records = self._run.records()
        self._usable = [place for place, each in enumerate(self._records) if not _unusable(each)]
        self._next = 0
        self._given: dict[int, tuple[EarnedReward, ...]] = {}
        self._failed: Counter[str] = Counter()

    def close(self) -> None:
        self._run.close()
        if self._lock >= 0:
            os.close(self._lock)

    @property
    def rollouts(self) -> int:
        """How many can be scored."""
        return len(self._usable)

    def next(self, count: int) -> list[AnswerToScore]:
        """Up to `count` further ones."""
        places = self._usable[self._next : self._next + count]
        self._next += len(places)
        return [
            AnswerToScore(place, json.loads(each.task), each.answer)
            for place in places
            for each in [self._records[place]]
        ]

    def take(self, scored: ScoredAnswer) -> None:
        """What the functions made of one of them."""
        if scored.error:
            self._failed[scored.error.partition("\n")[0][:300]] += 1
            return
        record = self._records[scored.number]
        if not scored.given and not record.emitted:
            self._failed["no reward function gave a number, and the agent gave none either"] += 1
            return
        ended = int((record.entry.ended or 0.0) * 1e9)
        self._given[scored.number] = tuple(
            EarnedReward(each.role, each.name, each.value, ended, each.why) for each in scored.given
        )

    def result(self) -> RescoringResult:
        """How old and new differ; the new numbers are put into the store, if they are to be."""
        scored = [RescoredRollout(self._records[place], given) for place, given in sorted(self._given.items())]
        replaced = {reward.name for each in scored for reward in each.record.given}
        kept = {reward.name for each in scored for reward in each.record.emitted}
        before, after = self._run.settings, with_weights(self._run.settings, self._wanted.weights)
        number = self._write(scored) if self._wanted.write and scored else None
        return RescoringResult(
            run=self._run.folder.name,
            rewards=self._wanted.names,
            weights={name: after.credit.rewards.get(name, 1.0) for name in self._wanted.names},
            replaces=sorted(replaced),
            keeps=sorted(kept),
            rollouts=len(self._records),
            scored=len(scored),
            left_out=self._left_out(),
            comparisons=comparison.compare(scored, before, after),
            written=number is not None,
            rescoring=number,
        )

    def _left_out(self) -> dict[str, int]:
        """Why rollouts were not scored, and how many of each."""
        reasons = Counter(why for each in self._records if (why := _unusable(each))) + self._failed
        told = dict(reasons.most_common(_REASONS))
        others = reasons.total() - sum(told.values())
        return told | ({"other reasons": others} if others else {})

    def _write(self, scored: Sequence[RescoredRollout]) -> int:
        store = Store(self._run.folder / "hub.sqlite")
        try:
            return store.rescore(
                (
                    RescoredRow(
                        each.record.entry.key, reward.role, reward.name, reward.value, reward.time_ns, reward.why
                    )
                    for each in scored
                    for reward in each.given
                ),
                [each.record.entry.key for each in scored],
                json.dumps({"rewards": self._wanted.names, "weights": self._wanted.weights}),
            )
        finally:
            store.close()


def _unusable(record: StoredRollout) -> str:
    """Why an attempt cannot be scored, '' if it can."""
    if record.entry.status != Status.OK:
        return f"it ended with {record.entry.status.replace('_', ' ')}"
    return f"its answer was not kept: {record.unkept or 'for an unknown reason'}" if not record.answer else ""


def _lock(folder: Path) -> int:
    try:
        return lock_folder(folder)
    except HubError as error:
        raise HubError(f"{error}. Rewards cannot be written while the run is under way: wait until it ends") from None


def main() -> int:
    """The program."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    try:
        wanted = read_struct(RescoringRequest, json.loads(sys.stdin.readline()), "the request")
        started = StoreRescoring(wanted)
        with contextlib.closing(started):
            _say(answers, {"rollouts": started.rollouts})
            for line in sys.stdin:
                _say(answers, _answer(started, json.loads(line)))
    except LightningError as error:
        _say(answers, {"error": [type(error).__name__, str(error)]})
        return 1
    return 0


def _answer(started: StoreRescoring, asked: Mapping[str, Any]) -> object:
    for each in asked.get("scored", ()):
        started.take(ScoredAnswer.from_dict(each))
    if asked.get("result"):
        return started.result().as_dict()
    return list(map(asdict, started.next(asked["next"])))


def _say(answers: TextIO, value: object) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
