"""Re-scoring, the store's side: hands out stored answers, takes new numbers for them, compares and writes them down.

Run as a program by `lightning_sdk.commands.rescore`, which has the reward functions: one JSON line in, one out, until
it has asked for everything and for the result. {"run", "names", "weights", "write"} -> {"rollouts"};
{"scored", "next"} -> [{"number", "task", "answer"}]; {"scored", "result": true} -> the result. An error is
{"error": [class, message]}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_hub.replay import comparison
from lightning_hub.replay.comparison import RescoredRollout
from lightning_hub.replay.stored_run import StoredRollout, StoredRun, settle_locked, with_weights
from lightning_hub.rollout import Reward
from lightning_hub.storage.lock import lock_folder
from lightning_hub.storage.rows import RescoredRow
from lightning_hub.storage.store import Store
from lightning_sdk.errors import HubError, LightningError
from lightning_sdk.trace.call import Status

#: Different reasons that are listed; the others are counted together.
_REASONS = 12


class StoreRescoring:
    """One re-scoring of one run."""

    def __init__(self, folder: Path, names: Sequence[str], weights: Mapping[str, float], write: bool) -> None:
        """HubError if it is to be written and a hub has the folder; SettingError if nothing is stored there."""
        self._lock = _lock(folder) if write and (folder / "hub.sqlite").is_file() else -1
        if self._lock >= 0:
            settle_locked(folder)
        self._run = StoredRun(folder)
        self._names, self._weights = tuple(names), dict(weights)
        self._records = self._run.records()
        self._usable = [place for place, each in enumerate(self._records) if not _unusable(each)]
        self._next = 0
        self._given: dict[int, tuple[Reward, ...]] = {}
        self._failed: Counter[str] = Counter()

    def close(self) -> None:
        self._run.close()
        if self._lock >= 0:
            os.close(self._lock)

    @property
    def rollouts(self) -> int:
        """How many can be scored."""
        return len(self._usable)

    def next(self, count: int) -> list[dict[str, Any]]:
        """Up to `count` further ones: number, task, and answer as JSON."""
        places = self._usable[self._next : self._next + count]
        self._next += len(places)
        return [
            {"number": place, "task": json.loads(each.task), "answer": each.answer}
            for place in places
            for each in [self._records[place]]
        ]

    def take(self, number: int, given: Sequence[tuple[str, str, float]], error: str) -> None:
        """What the functions gave for one of them: name, role and value of each number, or why they gave none."""
        if error:
            self._failed[error.partition("\n")[0][:300]] += 1
            return
        if not given and not self._records[number].emitted:
            self._failed["no reward function gave a number, and the agent gave none either"] += 1
            return
        ended = int((self._records[number].entry.ended or 0.0) * 1e9)
        self._given[number] = tuple(Reward(role, name, value, ended) for name, role, value in given)

    def result(self, write: bool) -> dict[str, Any]:
        """How old and new differ; `write` puts the new numbers into the store."""
        scored = [RescoredRollout(self._records[place], given) for place, given in sorted(self._given.items())]
        replaced = {reward.name for each in scored for reward in each.record.given}
        kept = {reward.name for each in scored for reward in each.record.emitted}
        before, after = self._run.settings, with_weights(self._run.settings, self._weights)
        number = self._write(scored) if write and scored else None
        return {
            "run": self._run.folder.name,
            "rewards": list(self._names),
            "weights": {name: after.credit.rewards.get(name, 1.0) for name in self._names},
            "replaces": sorted(replaced),
            "keeps": sorted(kept),
            "rollouts": len(self._records),
            "scored": len(scored),
            "left_out": self._left_out(),
            "comparisons": comparison.compare(scored, before, after),
            "written": number is not None,
            "rescoring": number,
        }

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
                    RescoredRow(each.record.entry.key, reward.role, reward.name, reward.value, reward.time_ns)
                    for each in scored
                    for reward in each.given
                ),
                [each.record.entry.key for each in scored],
                json.dumps({"rewards": self._names, "weights": self._weights}),
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
        wanted = json.loads(sys.stdin.readline())
        started = StoreRescoring(Path(wanted["run"]), wanted["names"], wanted["weights"], wanted["write"])
        with contextlib.closing(started):
            _say(answers, {"rollouts": started.rollouts})
            for line in sys.stdin:
                _say(answers, _answer(started, json.loads(line), wanted["write"]))
    except LightningError as error:
        _say(answers, {"error": [type(error).__name__, str(error)]})
        return 1
    return 0


def _answer(started: StoreRescoring, asked: Mapping[str, Any], write: bool) -> Any:
    for number, given, error in asked.get("scored", ()):
        started.take(number, given, error)
    return started.result(write) if asked.get("result") else started.next(asked["next"])


def _say(answers: Any, value: Any) -> None:
    print(json.dumps(value), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
