"""Runner pools: the runners that a training starts itself, in its own process or in others on this machine.

A pool of Ray actors is in `lightning_sdk.rollouts.ray_runners`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lightning_sdk.errors import HubError
from lightning_sdk.hub.client import HubClient
from lightning_sdk.markers.reward import RewardFunction
from lightning_sdk.rollouts import reference
from lightning_sdk.rollouts.runner import Runner
from lightning_sdk.settings.placement import Placement
from lightning_sdk.system.cores import cores


class RunnerPool(Protocol):
    """Runners, from start to stop."""

    def start(self, address: str, key: str) -> None:
        """Begin to run the rollouts of the hub at this address; returns at once."""
        ...

    def failure(self) -> str:
        """Why no rollout is run any more; '' while some are."""
        ...

    def stop(self) -> None:
        """End them all. Idempotent."""
        ...


class NoRunners:
    """No runners here: others run the rollouts."""

    def start(self, address: str, key: str) -> None:
        pass

    def failure(self) -> str:
        return ""

    def stop(self) -> None:
        pass


class InProcessPool:
    """One runner in this process."""

    def __init__(
        self, agent: Callable[..., Any], rewards: Sequence[RewardFunction], concurrency: int, kind: str
    ) -> None:
        self._agent, self._rewards, self._concurrency, self._kind = agent, rewards, concurrency, kind
        self._runner: Runner | None = None

    def start(self, address: str, key: str) -> None:
        self._runner = Runner(
            address, key, self._agent, self._rewards, concurrency=self._concurrency, kind=self._kind, watched=True
        )
        self._runner.start()

    def failure(self) -> str:
        error = self._runner.error if self._runner is not None else None
        return "" if error is None else f"the runner stopped: {error}"

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.stop()


class ProcessPool:
    """Several processes, each with its share of the concurrency."""

    def __init__(
        self, agent: Callable[..., Any], rewards: Sequence[RewardFunction], concurrency: int, count: int
    ) -> None:
        """SettingError for a function that another process cannot find."""
        self._count = min(count or cores(), concurrency)
        self._config: dict[str, Any] = {
            **references(agent, rewards),
            "kind": "auto",
            "concurrency": -(-concurrency // self._count),
        }
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        """Those that have not ended by themselves, by the names of their runners."""

    def start(self, address: str, key: str) -> None:
        self._config |= {"address": address, "key": key}
        for _ in range(self._count):
            self._start_one()

    def failure(self) -> str:
        for name, process in list(self._workers.items()):
            if process.poll() is not None:
                self._replace(name, process)
        return "" if self._workers else "every runner process has ended; their output is above"

    def _start_one(self) -> None:
        name = f"{socket.gethostname()}-{uuid.uuid4().hex}"
        # A session of its own: Ctrl-C is for the training to handle, and the runner ends when its stdin closes.
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_sdk.rollouts.runner"], stdin=subprocess.PIPE, start_new_session=True
        )
        self._workers[name] = process
        assert process.stdin is not None
        process.stdin.write(json.dumps({**self._config, "name": name}).encode() + b"\n")
        process.stdin.flush()

    def _replace(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Tell the hub at once that a process ended by itself, and start another one if rollouts ended with it."""
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            with HubClient(self._config["address"], self._config["key"]) as hub:
                lost = hub.ask("release", runner=name, exit_code=process.returncode)
        except HubError:
            return  # it does not listen now: nobody else tells it, so the next look does
        del self._workers[name]
        if lost:  # each costs an attempt at a rollout, so there is an end to it
            self._start_one()

    def stop(self) -> None:
        for process in self._workers.values():
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        for process in self._workers.values():
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def local_pool(
    placement: Placement, agent: Callable[..., Any], rewards: Sequence[RewardFunction], concurrency: int
) -> RunnerPool:
    """The pool of a placement on this machine."""
    if placement.kind == "none":
        return NoRunners()
    if placement.kind == "processes":
        return ProcessPool(agent, rewards, concurrency, placement.number)
    return InProcessPool(agent, rewards, concurrency, placement.kind)


def references(agent: Callable[..., Any], rewards: Sequence[RewardFunction]) -> dict[str, Any]:
    """Agent and rewards as another process finds them. SettingError for a function without a name there."""
    return {"agent": reference.of(agent), "rewards": [reference.of(each.function) for each in rewards]}
