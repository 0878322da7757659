"""Leases with a round of rollouts offered, without a hub around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning_hub.backend import Endpoint
from lightning_hub.rollout import Assignment
from lightning_hub.rollouts.leases import Leases
from lightning_hub.rollouts.round_queue import Outcome, RoundQueue, Rules
from lightning_hub.storage.index import End
from lightning_hub.storage.store import Store
from lightning_sdk.system.clock import Clock
from lightning_sdk.trace.call import Status

RETRIED = frozenset({Status.INFRASTRUCTURE_ERROR, Status.TIMEOUT})


class MachineTime:
    """The time of a machine, which passes only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class LeasedRound:
    """Leases with one round of rollouts offered, and what the trainer asks of them."""

    def __init__(self, leases: Leases, queue: RoundQueue, time: MachineTime) -> None:
        self.leases, self.queue, self.time = leases, queue, time

    def another(self, numbers: list[int], *, first: bool = False) -> LeasedRound:
        """A further round, of rollouts with these numbers."""
        rollouts = [assignment(number, 60.0) for number in numbers]
        return LeasedRound(self.leases, self.leases.open_round(rollouts, Rules(), 64, first=first), self.time)

    def wait(self, seconds: float) -> None:
        """Let this time pass, and the hub look at it."""
        self.time.advance(seconds)
        self.leases.expire()

    def lease(self, places: int = 99, runner: str = "r") -> list[Assignment]:
        return self.leases.lease(runner, places)

    def over(self) -> bool:
        return self.leases.wait(self.queue, 0.0, lambda: False)

    def outcomes(self) -> list[tuple[str, str, int]]:
        """Group, status and attempt of each."""
        return [(each.assignment.group, str(each.status), each.assignment.attempt) for each in self.close()]

    def close(self, why: str = "") -> list[Outcome]:
        return self.leases.close(self.queue, why)


Make = Callable[..., LeasedRound]


def make_round(
    store: Store,
    count: int = 2,
    *,
    concurrency: int = 64,
    timeout: float = 60.0,
    lease_seconds: float = 15.0,
    grace_seconds: float = 5.0,
    **rules: Any,
) -> LeasedRound:
    """A round of `count` rollouts that is offered to runners."""
    machine = MachineTime()
    leases = Leases(store, lease_seconds, grace_seconds, Clock(now=lambda: machine.seconds))
    chosen = Rules(**{"retried": RETRIED, "retries": 1, **rules})
    queue = leases.open_round([assignment(n, timeout) for n in range(count)], chosen, concurrency)
    return LeasedRound(leases, queue, machine)


def assignment(number: int, timeout: float) -> Assignment:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "m", "k")
    key = bytes([number]) * 16
    return Assignment(
        id=str(number),
        key=key,
        task_id=number,
        task={},
        group=f"g{number}",
        mode="train",
        attempt=1,
        timeout=timeout,
        endpoint=endpoint,
        sampling={},
        roles=(),
    )


def end(key: bytes, status: Status = Status.OK, *, rewarded: bool = True) -> End:
    return End(key, status, "" if status == Status.OK else "why", time.time(), rewarded, "")
