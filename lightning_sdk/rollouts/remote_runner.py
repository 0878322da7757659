"""A remote runner: it joins a training from another process or machine, and stays until the training ends.

It outlives the hub: while the hub is gone, as between a crash and `--resume`, it waits, for a limited time.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_sdk import session
from lightning_sdk.errors import HubError, HubGone, LightningError
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.joining import JoinedTraining, TrainingEnd
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.rollouts import reference
from lightning_sdk.rollouts.runner import Runner
from lightning_sdk.system.clock import Clock
from lightning_sdk.trace.structs import read_struct

_ANSWER_SECONDS = 4.0
"""Short, since asking again costs nothing here."""
_WATCH_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class RunSummary:
    """What a remote runner did, and how it ended."""

    hub: str
    run: str = ""
    ended: str = ""
    """'finished' or 'stopped', as the training did; 'interrupted' if it was this runner that was stopped."""
    rollouts: dict[str, int] = field(default_factory=dict)
    """Status -> rollouts that ended so here."""
    seconds: float = 0.0


class RemoteRunner:
    """Runs one agent for the training of a hub, from its beginning, or whenever it joins, to its end."""

    def __init__(
        self,
        address: str,
        key: str,
        agent: Callable[..., Any],
        rewards: Sequence[RewardFunction],
        *,
        concurrency: int,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        """`patience`: how many seconds to wait for a hub that does not answer, or whose training has not begun."""
        self._address, self._key, self._patience, self._say = address, key, patience, say
        self._identity = reference.identity(agent, (each.name for each in rewards))
        self._concurrency = concurrency
        self._runner = Runner(address, key, agent, rewards, concurrency=concurrency)
        self._summary = RunSummary(address)
        self._began = False

    def run(self, stop: queue.SimpleQueue[None]) -> RunSummary:
        """Run rollouts until the training has ended, or something is put into `stop`.

        Raises:
            HubRefused: the key or the protocol is wrong.
            SettingError: the training has another agent.
            HubGone: the hub did not answer for longer than `patience`.
            LightningError: the training failed; the message says with what.
        """
        started = time.monotonic()
        running = session.start()
        with (
            running.reserve(f"a runner of {self._identity.agent}"),
            running.stream_to(self._address, self._key, lambda: True),
        ):
            return self._run(stop, started)

    def _run(self, stop: queue.SimpleQueue[None], started: float) -> RunSummary:
        try:
            while not self._summary.ended:
                if self._join(stop):
                    self._until_over(stop)
        finally:
            self._leave()
            self._summary.rollouts, self._summary.seconds = dict(self._runner.ended), time.monotonic() - started
        return self._summary

    def _join(self, stop: queue.SimpleQueue[None]) -> bool:
        """Wait for the hub and its training; False if something else came first."""
        told, clock = "", Clock(2 * _ANSWER_SECONDS)
        name = f"{socket.gethostname()} ({self._runner.id.rsplit('-', 2)[1]})"
        while stop.empty():
            try:
                with self._client() as hub:
                    joined = hub.ask("join", runner=self._runner.id, name=name, identity=asdict(self._identity))
                why = f"the hub at {self._address} has not started a training yet"
            except HubGone:
                joined, why = {}, f"no hub answers at {self._address}"
            if joined:
                self._begin(read_struct(JoinedTraining, joined, "the answer to 'join'"))
                return True
            left = self._patience - clock.read()
            if left <= 0:
                raise HubGone(
                    f"{why}, after {self._patience:.0f} s: is the training running, with --listen, and can this "
                    "machine reach that address? (--wait SECONDS waits longer)"
                )
            if why != told:
                self._say(f"{why}; waiting for up to {left:.0f} s")
                told = why
            time.sleep(_PAUSE_SECONDS)
        self._summary.ended = "interrupted"
        return False

    def _begin(self, joined: JoinedTraining) -> None:
        self._summary.run = joined.run
        if joined.other_source:
            self._say(
                f"warning: the file of {self._identity.agent} differs from the training's: update it, unless that "
                "is intended"
            )
        self._say(
            f"running {self._identity.agent} for the training {self._summary.run!r} at {self._address}, "
            f"{self._concurrency} rollouts at once; Ctrl-C stops and gives unfinished ones back"
        )
        if not self._began:
            self._began = True
            self._runner.start()

    def _until_over(self, stop: queue.SimpleQueue[None]) -> None:
        """Until the training is over, the hub does not answer or knows nothing of us, or we are told to stop."""
        end: TrainingEnd | None = None
        with self._client() as hub, contextlib.suppress(HubGone):
            while end is None and stop.empty() and self._runner.error is None:
                if answer := hub.ask("over", runner=self._runner.id, wait=_WATCH_SECONDS):
                    end = read_struct(TrainingEnd, answer, "the answer to 'over'")
        if self._runner.error is not None:
            raise HubError(f"the runner stopped: {self._runner.error}") from self._runner.error
        if end is not None and end.status == "failed":
            raise LightningError(f"the training {self._summary.run!r} failed: {end.error}")
        if end is not None and end.status != "unknown":
            self._summary.ended = end.status
        elif not stop.empty():
            self._summary.ended = "interrupted"

    def _leave(self) -> None:
        """Give back what is under way, and go."""
        if self._began:
            self._runner.stop()
            with contextlib.suppress(HubError), self._client() as hub:
                hub.ask("release", runner=self._runner.id)

    def _client(self) -> HubClient:
        return HubClient(self._address, self._key, seconds=_ANSWER_SECONDS)
