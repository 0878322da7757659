"""The hub: one run's folder, its receiver, its leases and its trainer, wired together behind the request methods."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lightning_hub.export.exporter import Exporter, start_exporter
from lightning_hub.feed import Feed
from lightning_hub.receive.receiver import Receiver
from lightning_hub.receive.requests import Method, Parked
from lightning_hub.receive.task_lists import TaskLists
from lightning_hub.rollout import Assignment
from lightning_hub.rollouts.leases import LEASE_SECONDS, Leases
from lightning_hub.rollouts.plan import Plan
from lightning_hub.rollouts.remote_runners import RemoteRunners
from lightning_hub.standstill import is_stopped
from lightning_hub.storage.index import Extent, Index
from lightning_hub.storage.lock import lock_folder, mark_ending
from lightning_hub.storage.log import Log
from lightning_hub.storage.set_aside import SetAside
from lightning_hub.storage.store import Store
from lightning_hub.storage.writes import Writes
from lightning_hub.training.trainer import Trainer
from lightning_sdk.errors import HubError
from lightning_sdk.hub.events import WarningEvent
from lightning_sdk.hub.joining import AgentIdentity, JoinedTraining
from lightning_sdk.hub.questions import (
    ClaimQuestion,
    DisbandQuestion,
    JoinQuestion,
    LeaseQuestion,
    OverQuestion,
    ReleaseQuestion,
    WatchQuestion,
)
from lightning_sdk.hub.run_request import RunRequest, TaskListPart
from lightning_sdk.settings import Export
from lightning_sdk.stream import curve
from lightning_sdk.trace.structs import read_struct

_STOP_SECONDS = 30.0
_LONGEST_WAIT_SECONDS = 60.0
#: What runners ask for. A runner is known by its id, which has 128 random bits: it cannot act for another one.
_OF_RUNNERS = frozenset({"lease", "renew", "release", "join", "over", "claim"})
_log = logging.getLogger(__name__)

Q = TypeVar("Q")
"""What a method is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a hub is started with, one JSON object on its standard input."""

    run: str
    """The run's folder."""
    key: str
    """Opens everything. A client that shows neither this key nor the guests' is refused."""
    guest_key: str = ""
    """Opens what guests may do; '': there are no guests."""
    guests_run: bool = True
    """Guests are runners; else they are agents that are recorded, and can ask for nothing."""
    secret: str = ""
    """The hub's own secret key, in Z85; '': the one that follows from `key`, a passphrase."""
    bind: str = "tcp://127.0.0.1:0"
    lifeline: bool = False
    """Exit when standard input closes, that is, when the process that started the hub is gone."""
    retain_bytes: int | None = None
    """Upper bound of the log on disk: beyond it the oldest segments without events of a rollout are deleted."""
    lease_seconds: float = LEASE_SECONDS
    workers: int | None = None
    """Processes that decode raw replies; None: as many as leave half of the cores alone, 4 at most."""


class Hub:
    """Serves until `stop`."""

    def __init__(self, config: Config) -> None:
        """Open the folder, recover the log and bind. HubError if another hub has the folder, PortInUse."""
        self.folder = Path(config.run).absolute()
        self._parent = os.getppid() if config.lifeline else 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.folder)
        self.feed = Feed()
        self.store = Store(self.folder / "hub.sqlite")
        self.id = self._identity()
        self._task_lists = TaskLists()
        self.leases = Leases(self.store, config.lease_seconds)
        self.remote_runners = RemoteRunners(self.feed, self.leases.runners)
        self._log = Log(self.folder / "spans")
        self.leases.position = lambda: self._log.end
        self.index = Index(self._log, self.store, self.leases.end)
        self.leases.gate.index = self.index
        self._aside = SetAside(self.folder, self._warn)
        self._log.on_damage = self._aside.add
        self.index.on_unusable = self._set_aside
        self._exporter = self._start_exporter(Export())
        self.store.on_end = self._export_ended
        self._recover()
        self.index.on_strays = self._strays if self._exporter else None
        self._trainer: Trainer | None = None
        self._writes = Writes(self.folder, self._warn)
        # A signal handler may put into it whatever this thread is doing; an Event could be locked by its own waiter.
        self._ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        methods = self._methods()
        self._receiver = Receiver(
            config.bind,
            hub=self.id,
            secret=config.secret or curve.hub_pair(config.key).secret.decode(),
            keys={config.guest_key: _OF_RUNNERS if config.guests_run else (), config.key: frozenset(methods)},
            log=self._log,
            index=self.index,
            methods=methods,
            tick=self._tick,
            writes=self._writes,
            retain_bytes=config.retain_bytes,
            warn=self._warn,
            workers=config.workers,
        )
        self.address = self._receiver.address
        self.feed.on_publish = self.leases.on_work = self._receiver.wake
        self._thread = threading.Thread(target=self._receive, name="receiver")
        self._thread.start()

    def wait(self) -> None:
        """Block until `stop` is called."""
        self._ends.put(self._ends.get())

    def stop(self) -> None:
        """Ask for the end; returns at once. Any thread, signal handlers too."""
        self._ends.put(None)

    def orphan(self) -> None:
        """Ask for the end, since whoever started this hub is gone. Where that was in the middle of a training, its
        guests are told nothing: they wait for it to go on."""
        if self._trainer is not None and self._trainer.is_busy and not self._trainer.is_interrupted:
            self.remote_runners.keep()
        self.stop()

    def close(self) -> bool:
        """Stop the trainer and its backend, make everything durable, give the folder to the next hub. False if the
        backend did not stop in time: it may write there until this process ends, which then keeps the lock."""
        self._ends.put(None)
        mark_ending(self._lock)
        ended = self._trainer is None or self._trainer.stop(_STOP_SECONDS)
        self._receiver.stop()
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            _log.error("the receiver did not stop in %.0f s", _STOP_SECONDS)
            return False
        if self._exporter is not None:
            self._exporter.close()
        self.store.close()
        self._log.close()
        if ended:
            os.close(self._lock)
        return ended

    def _receive(self) -> None:
        try:
            self._receiver.run()
        except Exception:
            _log.exception("the receiver failed; the hub stops")
        finally:
            self._ends.put(None)

    def _tick(self) -> None:
        """Keep the time of the leases, which stands still while the training does."""
        self.leases.expire(paused=bool(self._parent) and is_stopped(self._parent))

    def _identity(self) -> str:
        found = self.store.get("hub")
        if found is None:
            found = uuid.uuid4().hex
            self.store.put({"hub": found})
        return str(found)

    def _recover(self) -> None:
        began = time.monotonic()
        events = self.index.recover()
        self.store.end_orphans("the hub stopped while the rollout was under way", time.time())
        if events:
            _log.info("recovered %d events of the log in %.2f s", events, time.monotonic() - began)

    # --- export

    def _start_exporter(self, wanted: Export) -> Exporter | None:
        return start_exporter(
            wanted.otlp_endpoint,
            wanted.tokens,
            index=self.index,
            store=self.store,
            workflow=self.folder.name,
            warn=self._warn,
        )

    def _export(self, wanted: Export) -> None:
        """Export as a run's settings ask. SettingError if that cannot be done."""
        if wanted != Export():
            before, self._exporter = self._exporter, self._start_exporter(wanted)
            self.index.on_strays = self._strays if self._exporter else None
            if before is not None:  # not on this thread, which takes events in
                threading.Thread(target=before.close, name="export-close", daemon=True).start()

    def _export_ended(self, keys: list[bytes]) -> None:
        if self._exporter is not None:
            self._exporter.add_rollouts(keys)

    def _strays(self, places: list[Extent]) -> None:
        if self._exporter is not None:
            self._exporter.add_strays(places)

    def _set_aside(self, position: int, length: int, why: str) -> None:
        self._aside.add(self._log.place(position), self._log.read(position, length), why)

    def _warn(self, message: str) -> None:
        _log.warning(message)
        self.feed.publish(WarningEvent(message))

    # --- requests

    def _methods(self) -> dict[str, Method]:
        return {
            "lease": _reading(LeaseQuestion, self._lease),
            "renew": lambda params: self.leases.renew(str(params["runner"])),
            "release": _reading(ReleaseQuestion, self._release),
            "join": _reading(JoinQuestion, self._join),
            "over": _reading(OverQuestion, self._over),
            "claim": _reading(ClaimQuestion, self.leases.gate.claim),
            "disband": _reading(DisbandQuestion, self._disband),
            "tasks": _reading(TaskListPart, self._task_lists.add),
            "validate": self._validate,
            "train": lambda params: self._run(params, Plan.of_training),
            "check": lambda params: self._run(params, partial(Plan.of_training, check_only=True)),
            "evaluate": lambda params: self._run(params, Plan.of_evaluation),
            "watch": _reading(WatchQuestion, self._watch),
            "status": lambda _: self.status(),
            "stop": lambda _: self.stop(),
            "interrupt": lambda _: self._interrupt(),
        }

    def _lease(self, asked: LeaseQuestion) -> Parked:
        runner, places, watched = str(asked.runner), int(asked.places), bool(asked.watched)
        given: list[Assignment] = []

        def poll() -> list[dict[str, Any]]:
            given[:] = self.leases.lease(runner, places, watched=watched)
            return [each.as_message() for each in given]

        return Parked(
            poll, _wait_seconds(asked.wait), lambda _: self.leases.undo(given), lambda: self.leases.vanish(runner)
        )

    def _release(self, asked: ReleaseQuestion) -> int:
        released = self.leases.release(str(asked.runner), asked.exit_code)
        self.remote_runners.leave(str(asked.runner))
        return released

    def _join(self, asked: JoinQuestion) -> JoinedTraining | None:
        theirs = read_struct(AgentIdentity, asked.identity, "identity")
        return self.remote_runners.join(str(asked.runner), str(asked.name), theirs)

    def _over(self, asked: OverQuestion) -> Parked:
        runner = str(asked.runner)
        return Parked(lambda: self.remote_runners.over(runner), _wait_seconds(asked.wait))

    def _disband(self, asked: DisbandQuestion) -> Parked:
        self.remote_runners.disband(str(asked.status), str(asked.error))
        return Parked(self.remote_runners.is_empty, _wait_seconds(asked.wait))

    def _watch(self, asked: WatchQuestion) -> Parked:
        after = int(asked.after)
        return Parked(lambda: [each.as_message() for each in self.feed.after(after)], _wait_seconds(asked.wait))

    def _validate(self, params: Mapping[str, Any]) -> None:
        """Raises what `train` would raise at once; starts and writes nothing."""
        Plan.of_training(self._task_lists.resolve(RunRequest.from_message(params)))

    def _run(self, params: Mapping[str, Any], plan: Callable[[RunRequest], Plan]) -> dict[str, str]:
        if self._trainer is not None and self._trainer.is_busy:
            raise HubError(f"this hub is already training, in {self.folder}: stop it, or start another hub")
        request = self._task_lists.resolve(RunRequest.from_message(params))
        chosen = plan(request)
        self._export(chosen.settings.export)
        self._trainer = Trainer(
            chosen,
            folder=self.folder,
            leases=self.leases,
            index=self.index,
            store=self.store,
            feed=self.feed,
            writes=self._writes,
        )
        self.remote_runners.expect(request.identity, self.folder.name)
        self._trainer.start()
        return {}

    def _interrupt(self) -> None:
        if self._trainer is not None:
            self._trainer.interrupt()

    def status(self) -> dict[str, Any]:
        """Counters and facts, plain data. Receiver's thread."""
        self.index.save()
        done, active, queued = self.leases.progress()
        return {
            "hub": self.id,
            "run": str(self.folder),
            "address": self.address,
            "pid": os.getpid(),
            "bytes": self._log.bytes(),
            "clients": self._receiver.clients,
            "clients_ever": len(self.index.clients),
            "runners": self.leases.runners(),
            "rollouts": self.store.statuses(),
            "round": {"done": done, "active": active, "queued": queued},
            "training": self._trainer is not None and self._trainer.is_busy,
            "step": self._trainer.step if self._trainer is not None else 0,
            "export": self._exporter.status() if self._exporter is not None else None,
            **dict.fromkeys(("duplicates", "gaps", "garbage", "strangers", "refused", "write_errors"), 0),
            **self.index.counters,
            **self._receiver.counters,
        }


def _reading(kind: type[Q], method: Callable[[Q], object]) -> Method:
    """The method as a request calls it: what is asked is read from the request's params."""
    return lambda params: method(read_struct(kind, params, "the request"))


def _wait_seconds(wait: float) -> float:
    return min(max(float(wait), 0.0), _LONGEST_WAIT_SECONDS)
