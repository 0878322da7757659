"""Leases: an attempt ends once, by its end, by silence or by its timeout; what is not its fault is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_hub.backend import Endpoint
from lightning_hub.index import End
from lightning_hub.leases import Leases
from lightning_hub.rollout import Assignment
from lightning_hub.store import Store
from lightning_sdk.call import Status

Make = Callable[..., Leases]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub.sqlite")
    yield store
    store.close()


@pytest.fixture
def make(store: Store) -> Make:
    """Leases with a round of rollouts offered."""

    def make(
        count: int = 2, *, concurrency: int = 64, retries: int = 1, timeout: float = 60.0, **times: float
    ) -> Leases:
        leases = Leases(store, **times)
        leases.offer([assignment(number, timeout) for number in range(count)], concurrency, retries)
        return leases

    return make


def assignment(number: int, timeout: float) -> Assignment:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "m", "k")
    key = bytes([number]) * 16
    return Assignment(str(number), key, number, {}, f"g{number}", "train", 1, timeout, endpoint, {}, ())


def end(key: bytes, status: Status = Status.OK, *, rewarded: bool = True) -> End:
    return End(key, status, "" if status == Status.OK else "why", time.time(), rewarded, "")


def test_a_round_is_over_when_every_rollout_is(make: Make) -> None:
    """Outcomes carry the last attempt's status."""
    leases = make()
    first, second = leases.lease("r", 5)
    assert leases.end(end(first.key))
    assert not leases.wait(0.01, lambda: False)
    assert leases.end(end(second.key, Status.AGENT_ERROR))
    assert leases.wait(1.0, lambda: False)
    assert [(each.status, each.error) for each in leases.close("")] == [("ok", ""), ("agent_error", "why")]


def test_an_end_counts_once(make: Make) -> None:
    """The second end of an attempt is turned away, as is one under the key of an earlier attempt."""
    leases = make(1)
    [first] = leases.lease("r", 1)
    assert leases.end(end(first.key, Status.INFRASTRUCTURE_ERROR))
    assert not leases.end(end(first.key))
    [again] = leases.lease("r", 1)
    assert (again.id, again.attempt, again.key != first.key) == (first.id, 2, True)
    assert leases.end(end(again.key))
    assert not leases.end(end(again.key, Status.AGENT_ERROR))
    assert [each.status for each in leases.close("")] == ["ok"]


def test_retries_are_bounded(make: Make) -> None:
    """After retries + 1 attempts the failure is the outcome."""
    leases = make(1, retries=2)
    for attempt in (1, 2, 3):
        [given] = leases.lease("r", 1)
        assert given.attempt == attempt
        leases.end(end(given.key, Status.TIMEOUT))
    assert leases.lease("r", 1) == []
    assert [(each.status, each.assignment.attempt) for each in leases.close("")] == [("timeout", 3)]


def test_the_agents_own_errors_are_not_tried_again(make: Make) -> None:
    """Neither is a rollout that ended well but was given no reward: that is a reward error."""
    leases = make(3)
    for given, ending in zip(
        leases.lease("r", 3),
        ({"status": Status.AGENT_ERROR}, {"status": Status.REWARD_ERROR}, {"rewarded": False}),
        strict=True,
    ):
        leases.end(end(given.key, **ending))  # type: ignore[arg-type]
    assert leases.wait(0.0, lambda: False)
    outcomes = leases.close("")
    assert [each.status for each in outcomes] == ["agent_error", "reward_error", "reward_error"]
    assert "without a reward" in outcomes[2].error


def test_a_silent_runner_loses_its_leases(make: Make, store: Store) -> None:
    """One that renews keeps what it has; the reason names the runner, in the store too."""
    leases = make(2, lease_seconds=0.2, grace_seconds=0.0, retries=0)
    [silent] = leases.lease("silent", 1)
    [kept] = leases.lease("beating", 1)
    for _ in range(6):
        time.sleep(0.05)
        leases.expire()
        leases.renew("beating")
    assert leases.renew("silent") == []
    assert leases.renew("beating") == [kept.key]
    leases.end(end(kept.key))
    [first, second] = leases.close("")
    assert (first.assignment.id, first.status) == (silent.id, "infrastructure_error")
    assert "runner silent was silent" in first.error
    assert second.status == "ok"
    assert store.statuses()["infrastructure_error"] == 1


def test_a_rollout_that_takes_too_long(make: Make, store: Store) -> None:
    """Its timeout is named with the setting that gives it."""
    leases = make(1, timeout=0.05, grace_seconds=0.0, retries=0)
    [late] = leases.lease("r", 1)
    time.sleep(0.1)
    leases.expire()
    [outcome] = leases.close("")
    assert (outcome.status, outcome.assignment.id) == ("timeout", late.id)
    assert "no end within 0.05 s (rollouts.timeout)" in outcome.error
    assert store.statuses()["timeout"] == 1


def test_grace_comes_before_a_timeout(make: Make) -> None:
    """A runner ends its own rollouts on time; the hub only steps in later."""
    leases = make(1, timeout=0.01, grace_seconds=60.0)
    [given] = leases.lease("r", 1)
    time.sleep(0.05)
    leases.expire()
    assert leases.renew("r") == [given.key]


def test_concurrency_is_over_all_runners(make: Make) -> None:
    """What one runner has, another cannot have."""
    leases = make(5, concurrency=3)
    assert (len(leases.lease("a", 2)), len(leases.lease("b", 5)), leases.lease("c", 1)) == (2, 1, [])


def test_a_runner_that_goes_in_order_gives_back(make: Make) -> None:
    """Its rollouts are handed out again at once."""
    leases = make(2)
    leases.lease("r", 2)
    leases.release("r")
    assert [each.attempt for each in leases.lease("other", 2)] == [2, 2]


def test_a_lease_that_could_not_be_delivered_costs_no_attempt(make: Make) -> None:
    """The runner had gone while its request was parked."""
    leases = make(1)
    given = leases.lease("gone", 1)
    leases.undo(given)
    [again] = leases.lease("other", 1)
    assert (again.attempt, again.key == given[0].key) == (1, False)
    assert not leases.end(end(given[0].key))


def test_a_step_that_runs_out_of_time(make: Make) -> None:
    """What is under way has timed out; what nobody took says so; nothing is tried again."""
    leases = make(2, retries=5)
    leases.lease("r", 1)
    outcomes = {each.assignment.id: each for each in leases.close("step 3 ran out of time")}
    assert (outcomes["0"].status, outcomes["1"].status) == ("timeout", "infrastructure_error")
    assert "step 3 ran out of time" in outcomes["0"].error
    assert "before a runner took it" in outcomes["1"].error
    assert leases.progress() == (2, 0, 0)
