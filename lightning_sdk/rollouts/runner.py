"""The runner: takes rollouts from the hub and runs the user's agent on them, several at once.

Threads for plain agents, asyncio for async ones; further processes run this module as a program. An agent that
outlives its time is left alone in its thread and its place is given to the next: a thread cannot be stopped. How many
places are free the hub knows, which counts what it has leased.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import json
import logging
import os
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from lightning_sdk import session
from lightning_sdk.errors import DiskError, HubError, HubGone
from lightning_sdk.hub.client import HubClient
from lightning_sdk.markers.reward import RewardFunction, reward_functions
from lightning_sdk.rollouts import reference, repeats
from lightning_sdk.rollouts.attempt import aexecute, execute
from lightning_sdk.system import addresses
from lightning_sdk.trace.call import Status

log = logging.getLogger("lightning_sdk.runner")

_LEASE_WAIT_SECONDS = 1.0
"""Seconds that the hub holds a question for work before it answers that there is none."""
_HEARTBEAT_SECONDS = 1.0


class Runner:
    """Runs one agent for one hub until it is stopped."""

    def __init__(
        self,
        address: str,
        key: str,
        agent: Callable[..., Any],
        rewards: Sequence[RewardFunction],
        *,
        concurrency: int,
        kind: str = "auto",
        watched: bool = False,
        name: str = "",
    ) -> None:
        """`kind` is 'threads', 'asyncio', or 'auto', which takes asyncio for async agents; with `watched` it is for
        others to tell the hub when this process ends; `name` is what the hub knows it by, made up if empty."""
        self.id = name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        self._watched = watched
        self._agent, self._rewards, self._concurrency = agent, repeats.listen(tuple(rewards)), concurrency
        self._address, self._key = address, key
        self._stopping = threading.Event()
        self._changing = threading.RLock()  # to cancel a coroutine is to be told at once that it is over
        self._begun: set[bytes] = set()
        self._coroutines: dict[bytes, concurrent.futures.Future[None]] = {}
        self.ended: Counter[str] = Counter()
        """Rollouts by the status that they ended with here."""
        self.error: Exception | None = None
        """What ended the runner, None if it was stopped."""
        is_async = inspect.iscoroutinefunction(agent) or inspect.isasyncgenfunction(agent)
        self._loop = asyncio.new_event_loop() if kind == "asyncio" or (kind == "auto" and is_async) else None
        self._threads = [
            threading.Thread(target=self._work, name="lightning-runner", daemon=True),
            threading.Thread(target=self._beat, name="lightning-heartbeat", daemon=True),
        ]
        if self._loop is not None:
            self._threads.append(threading.Thread(target=self._serve, name="lightning-asyncio", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Block until `stop` is called from elsewhere, or the hub refuses this runner."""
        self._threads[0].join()

    def stop(self) -> None:
        """Take no further work. Rollouts under way continue, but no longer count."""
        self._stopping.set()
        for thread in self._threads[:2]:
            thread.join(_LEASE_WAIT_SECONDS + 2.0)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself just now
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._threads[2].join(_LEASE_WAIT_SECONDS + 2.0)

    @property
    def under_way(self) -> int:
        """Rollouts that run here now."""
        with self._changing:
            return len(self._begun)

    def _lease(self, hub: HubClient) -> None:
        while not self._stopping.is_set():
            given = hub.ask(
                "lease", runner=self.id, places=self._concurrency, watched=self._watched, wait=_LEASE_WAIT_SECONDS
            )
            for message in given:
                self._begin(message)

    def _renew(self, hub: HubClient) -> None:
        while not self._stopping.wait(_HEARTBEAT_SECONDS):
            with self._changing:
                begun = set(self._begun)
            self._give_up(begun - set(hub.ask("renew", runner=self.id)))

    def _keep_asking(self, talk: Callable[[HubClient], None]) -> None:
        """`talk` to the hub until stopped. One that does not answer, or whose disk is full, is asked again: whether the
        training is over is not for a runner to guess."""
        while not self._stopping.is_set():
            try:
                with HubClient(self._address, self._key, lambda: not self._stopping.is_set()) as hub:
                    talk(hub)
            except HubGone:
                continue
            except DiskError:
                self._stopping.wait(_LEASE_WAIT_SECONDS)

    def _work(self) -> None:
        try:
            self._keep_asking(self._lease)
        except HubError as error:
            if not self._stopping.is_set():
                self.error = error
        except Exception as error:
            log.exception("lightning: the runner failed")
            self.error = error

    def _beat(self) -> None:
        try:
            self._keep_asking(self._renew)
        except HubError as error:
            self.error = self.error or (None if self._stopping.is_set() else error)

    def _give_up(self, lost: set[bytes]) -> None:
        """Rollouts that the hub has ended, or handed to another runner: their places are free."""
        with self._changing:
            self._begun -= lost
            for key in lost:
                if (coroutine := self._coroutines.pop(key, None)) is not None:
                    coroutine.cancel()

    def _serve(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        while not self._stopping.is_set():
            # A task of an agent that raises one of these, or stops the loop, ends `run_forever` for all others too.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _begin(self, message: dict[str, Any]) -> None:
        key = bytes(message["key"])
        with self._changing:
            self._begun.add(key)
        # A wildcard is where an engine listens; it is called by the name that leads to its hub.
        if (endpoint := message["endpoint"]) is not None:
            endpoint["url"] = addresses.reachable_address(endpoint["url"], self._address)

        def forget() -> None:
            with self._changing:
                self._begun.discard(key)
                self._coroutines.pop(key, None)

        if self._loop is not None:
            coroutine = asyncio.run_coroutine_threadsafe(self._aexecute(message, key), self._loop)
            with self._changing:
                self._coroutines[key] = coroutine
            coroutine.add_done_callback(lambda _: forget())
            return

        def run() -> None:
            try:
                self._count(execute(self._agent, self._rewards, message))
            finally:
                forget()

        threading.Thread(target=run, name=f"rollout-{message['id'][:8]}", daemon=True).start()

    async def _aexecute(self, message: dict[str, Any], key: bytes) -> None:
        def is_wanted() -> bool:
            return not self._stopping.is_set() and key in self._begun

        self._count(await aexecute(self._agent, self._rewards, message, is_wanted))

    def _count(self, status: Status) -> None:
        with self._changing:
            self.ended[status.value] += 1


def main() -> None:
    """Run as a program: one JSON line on stdin says what to run; the end of stdin stops it."""
    told = _take_stdin()
    config = json.loads(told.readline())
    running = session.start()
    running.attach(config["address"], config["key"], keep=False)
    running.reserved_for = "a training's runner"  # whatever the agent's file does when it is imported
    agent, functions = reference.load(config["agent"]), [reference.load(each) for each in config["rewards"]]
    rewards = reward_functions(functions) if functions else ()
    runner = Runner(
        config["address"],
        config["key"],
        agent,
        rewards,
        concurrency=config["concurrency"],
        kind=config["kind"],
        watched=True,
        name=config["name"],
    )

    def stop_at_end_of_input() -> None:
        told.read()
        runner.stop()

    runner.start()  # ahead of what may stop it: a thread that was never started cannot be waited for
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    runner.wait()
    session.end()


def _take_stdin() -> TextIO:
    """What the training says, which the agent has no part in: it would wait for it in input(), and exit() closes it."""
    told = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return told


if __name__ == "__main__":
    main()
