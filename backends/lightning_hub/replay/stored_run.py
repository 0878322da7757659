"""A stored run: the rollouts of an earlier run as its folder has them, to be scored again and to be learned from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_hub.rollout import EarnedReward, Rollout
from lightning_hub.rollouts.archive import Archive
from lightning_hub.storage.attempts import StoredAttempt
from lightning_hub.storage.index import Index
from lightning_hub.storage.lock import lock_folder
from lightning_hub.storage.log import Log
from lightning_hub.storage.rows import StoredAnswer, StoredReward
from lightning_hub.storage.store import Store
from lightning_sdk.errors import HubError, SettingError
from lightning_sdk.results.run_files import RunConfig, read_config
from lightning_sdk.rollouts import tasks
from lightning_sdk.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRollout:
    """One attempt at a rollout that is over, without its calls."""

    entry: StoredAttempt
    task: str
    """As JSON, see `canonical`."""
    answer: str
    """As JSON; '' if it was not kept."""
    unkept: str
    """Why it was not."""
    rewards: tuple[EarnedReward, ...]
    """Those that count, in the order in which they were given."""
    emitted: tuple[EarnedReward, ...]
    """Those of them that were given inside the run, by `emit_reward`."""
    given: tuple[EarnedReward, ...]
    """Those of them that reward functions gave, which a re-scoring replaces."""
    rescoring: int
    """The re-scoring that gave the others; 0: the run itself."""

    @property
    def rollout_without_calls(self) -> Rollout:
        """The rollout with its rewards and without its calls."""
        entry = self.entry
        return Rollout(
            id=entry.id,
            task_id=entry.task_id,
            group=entry.group,
            mode=entry.mode,
            attempt=entry.attempt,
            status=entry.status,
            error=entry.error,
            seconds=0.0,
            rewards=self.rewards,
        )


class StoredRun:
    """One run's folder, read only. What a hub is writing there meanwhile is not seen."""

    def __init__(self, folder: Path) -> None:
        """SettingError if nothing is stored there, HubError for a store that another version is writing."""
        self.folder = folder
        if not (folder / "hub.sqlite").is_file():
            raise SettingError(f"{folder} holds no rollouts: it has no hub.sqlite")
        settle(folder)
        self._store = Store(folder / "hub.sqlite", reading=True)
        self._archive = Archive(folder)

    def close(self) -> None:
        self._archive.close()
        self._store.close()

    def __enter__(self) -> StoredRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def config(self) -> RunConfig:
        """How the run was started; empty if that was not kept, as after `lightning-sdk serve`."""
        return read_config(self.folder) or RunConfig()

    @cached_property
    def rescoring(self) -> int:
        """Number of the last re-scoring that was written; 0 if there is none."""
        last = self._store.last_rescoring()
        return 0 if last is None else last.number

    @cached_property
    def settings(self) -> Settings:
        """Those that the run had, its rewards weighed as in its last re-scoring; the defaults where an earlier version
        had settings of another kind."""
        try:
            settings = Settings.from_dict(self.config.settings or {})
        except SettingError:
            settings = Settings()
        last = self._store.last_rescoring()
        return with_weights(settings, {} if last is None else json.loads(last.rewards)["weights"])

    def records(self) -> list[StoredRollout]:
        """Every attempt that is over, in the order in which they began."""
        given: dict[bytes, list[StoredReward]] = {}
        for reward in self._store.rewards():
            given.setdefault(reward.key, []).append(reward)
        return [_record(each, given.get(each.attempt.key, [])) for each in self._store.answers()]

    def rollout(self, record: StoredRollout) -> Rollout | None:
        """The rollout with its calls; None if they cannot be read back."""
        found = next(self._archive.rollouts([record.entry]), None)
        return None if found is None else found.with_rewards(record.rewards)


def _record(found: StoredAnswer, given: list[StoredReward]) -> StoredRollout:
    rewards = [EarnedReward(each.role, each.name, each.value, each.time_ns, each.why) for each in given]
    return StoredRollout(
        entry=found.attempt,
        task=canonical(json.loads(found.task)),
        answer=found.answer,
        unkept=found.unkept,
        rewards=tuple(rewards),
        emitted=tuple(reward for reward, each in zip(rewards, given, strict=True) if not each.by_function),
        given=tuple(reward for reward, each in zip(rewards, given, strict=True) if each.by_function),
        rescoring=max((each.rescoring for each in given), default=0),
    )


def canonical(task: Mapping[str, Any]) -> str:
    """As `lightning_sdk.rollouts.tasks.canonical`, of a task that may hold anything."""
    return tasks.canonical(json.loads(json.dumps(task, default=str)))


def with_weights(settings: Settings, weights: Mapping[str, float]) -> Settings:
    """The settings with these weights of rewards by name; those that they have already stand where none is given."""
    return replace(settings, credit=replace(settings.credit, rewards={**settings.credit.rewards, **weights}))


def settle(folder: Path) -> None:
    """Bring a run's store up to this version and to the end of its log, unless a hub is at it or it cannot be
    written."""
    try:
        lock = lock_folder(folder)
    except (HubError, OSError):
        return
    try:
        settle_locked(folder)
    finally:
        os.close(lock)


def settle_locked(folder: Path) -> None:
    """The same for who holds the lock."""
    store, log = Store(folder / "hub.sqlite"), Log(folder / "spans")
    try:
        Index(log, store, lambda _: True).recover()
    finally:
        log.close()
        store.close()
