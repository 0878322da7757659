"""Leases and offers: an attempt ends once, and then a policy says whether another one, or another rollout, follows."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_hub.rollouts.round_queue import Rules
from lightning_hub.storage.store import Store
from lightning_sdk.settings import Settings
from lightning_sdk.trace.call import Status
from tests.hub.leasing import Make, assignment, end, make_round


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "hub.sqlite")
    yield store
    store.close()


@pytest.fixture
def make(store: Store) -> Make:
    """Leases with a round of rollouts offered."""
    return functools.partial(make_round, store)


def test_a_round_is_over_when_every_rollout_is(make: Make) -> None:
    """Outcomes carry the last attempt's status."""
    played = make()
    first, second = played.lease()
    assert played.leases.end(end(first.key))
    assert not played.over()
    assert played.leases.end(end(second.key, Status.AGENT_ERROR))
    assert played.over()
    assert [(each.status, each.error) for each in played.close()] == [("ok", ""), ("agent_error", "why")]


def test_an_end_counts_once(make: Make) -> None:
    """The second end of an attempt is turned away, as is one under the key of an earlier attempt."""
    played = make(1)
    [first] = played.lease()
    assert played.leases.end(end(first.key, Status.INFRASTRUCTURE_ERROR))
    assert not played.leases.end(end(first.key))
    [again] = played.lease()
    assert (again.id, again.attempt, again.key != first.key) == (first.id, 2, True)
    assert played.leases.end(end(again.key))
    assert not played.leases.end(end(again.key, Status.AGENT_ERROR))
    assert played.outcomes() == [("g0", "ok", 2)]


def test_retries_are_bounded(make: Make) -> None:
    """After retries + 1 attempts the failure is the outcome."""
    played = make(1, retries=2)
    for attempt in (1, 2, 3):
        [given] = played.lease()
        assert given.attempt == attempt
        played.leases.end(end(given.key, Status.TIMEOUT))
    assert played.lease() == []
    assert played.outcomes() == [("g0", "timeout", 3)]


def test_a_further_attempt_waits(make: Make) -> None:
    """Twice as long each time; meanwhile others of the round are handed out, and somebody is told when it is time."""
    played, told = make(2, retries=2, backoff=0.2), []
    [first] = played.lease(1)
    for seconds, others in ((0.2, ["1"]), (0.4, [])):
        played.leases.end(end(first.key, Status.TIMEOUT))
        assert [each.id for each in played.lease()] == others
        played.wait(seconds - 0.01)
        assert played.lease() == []
        played.wait(0.02)
        [first] = played.lease()
        assert first.id == "0"
    played = make(1, backoff=0.05)
    played.leases.end(end(played.lease()[0].key, Status.TIMEOUT))
    played.leases.on_work = lambda: told.append("work")
    played.leases.expire()
    assert told == []
    played.wait(0.06)
    assert told == ["work"]


def test_what_is_tried_again_is_the_policys_to_say(make: Make) -> None:
    """A rollout that ended well but was given no reward is a reward error; without a policy nothing is tried again."""
    endings: list[dict[str, Any]] = [
        {"status": Status.AGENT_ERROR},
        {"status": Status.REWARD_ERROR},
        {"rewarded": False},
        {"status": Status.TIMEOUT},
    ]
    played = make(4)
    for given, ending in zip(played.lease(), endings, strict=True):
        played.leases.end(end(given.key, **ending))
    assert [each.id for each in played.lease()] == ["3"]
    outcomes = played.close()
    assert [each.status for each in outcomes] == ["agent_error", "reward_error", "reward_error", "timeout"]
    assert "without a reward" in outcomes[2].error
    played = make(4, retried=frozenset({Status.AGENT_ERROR, Status.REWARD_ERROR}))
    for given, ending in zip(played.lease(), endings, strict=True):
        played.leases.end(end(given.key, **ending))
    assert sorted(each.id for each in played.lease()) == ["0", "1", "2"]


def test_an_excluded_rollout_is_replaced(make: Make) -> None:
    """By a fresh one of its task and group, whose attempts count from 1; both outcomes are kept, beside each other."""
    played = make(2, retries=1, refills=2)
    first, second = played.lease()
    played.leases.end(end(second.key))
    ids = {first.id}
    for status in (Status.AGENT_ERROR, Status.TIMEOUT, Status.TIMEOUT, Status.REWARD_ERROR):
        played.leases.end(end(first.key, status))
        first = next(iter(played.lease()), first)
        ids.add(first.id)
    assert len(ids) == 3
    assert (first.task_id, first.group) == (0, "g0")
    assert played.over()
    assert played.outcomes() == [
        ("g0", "agent_error", 1),
        ("g0", "timeout", 2),
        ("g0", "reward_error", 1),
        ("g1", "ok", 1),
    ]
    assert played.queue.refilled == 2


def test_a_failure_that_is_trained_on_is_not_replaced(make: Make) -> None:
    """It stays in its group as it is."""
    played = make(1, refills=1, kept=frozenset({Status.AGENT_ERROR}))
    played.leases.end(end(played.lease()[0].key, Status.AGENT_ERROR))
    assert played.over()
    assert played.outcomes() == [("g0", "agent_error", 1)]


def test_policies_of_the_settings() -> None:
    """A step tries again and refills as `failure.*` says and ends at its deadline; an evaluation replaces nothing."""
    settings = Settings.from_dict({
        "failure.agent_error": "retry", "failure.timeout": "train", "failure.reward": -1.0, "failure.retries": 3,
        "failure.backoff": 0.25, "failure.refills": 4, "rollouts.deadline": 7.0, "rollouts.timeout": 10.0,
        "rollouts.concurrency": 2,
    })  # fmt: skip
    step, held_out = Rules.of_step(settings), Rules.of_evaluation(settings, 5)
    assert step.retried == held_out.retried == {Status.AGENT_ERROR, Status.INFRASTRUCTURE_ERROR}
    assert step.kept == {Status.TIMEOUT}
    assert (step.retries, step.backoff, step.refills, step.seconds) == (3, 0.25, 4, 7.0)
    assert (held_out.retries, held_out.backoff, held_out.refills) == (3, 0.25, 0)
    assert held_out.seconds >= 3 * 4 * 10.0


def test_a_silent_runner_loses_its_leases(make: Make, store: Store) -> None:
    """One that renews keeps what it has; the reason names the runner, in the store too."""
    played = make(2, lease_seconds=0.2, grace_seconds=0.0, retries=0)
    [silent] = played.lease(1, "silent")
    [kept] = played.lease(1, "beating")
    for _ in range(6):
        played.wait(0.05)
        played.leases.renew("beating")
    assert played.leases.renew("silent") == []
    assert played.leases.renew("beating") == [kept.key]
    played.leases.end(end(kept.key))
    [first, second] = played.close()
    assert (first.assignment.id, first.status) == (silent.id, "infrastructure_error")
    assert "runner silent was silent" in first.error
    assert second.status == "ok"
    assert store.statuses()["infrastructure_error"] == 1


def test_a_rollout_that_takes_too_long(make: Make, store: Store) -> None:
    """Its timeout is named with the setting that gives it."""
    played = make(1, timeout=0.05, grace_seconds=0.0, retries=0)
    [late] = played.lease()
    played.wait(0.04)
    assert not played.over()
    played.wait(0.02)
    [outcome] = played.close()
    assert (outcome.status, outcome.assignment.id) == ("timeout", late.id)
    assert "not finished within 0.05 s (rollouts.timeout)" in outcome.error
    assert store.statuses()["timeout"] == 1


def test_grace_comes_before_a_timeout(make: Make) -> None:
    """A runner ends its own rollouts on time; the hub only steps in later."""
    played = make(1, timeout=0.01, grace_seconds=60.0)
    [given] = played.lease()
    played.wait(0.05)
    assert played.leases.renew("r") == [given.key]


def test_concurrency_is_over_all_runners_and_rounds(make: Make) -> None:
    """What one runner has, another cannot have; a round ahead has what the older ones leave."""
    played = make(4, concurrency=3)
    ahead = played.leases.open_round([assignment(9, 60.0)], Rules(), 3)
    assert (len(played.lease(2, "a")), len(played.lease(5, "b")), played.lease(1, "c")) == (2, 1, [])
    played.leases.release("b")
    assert [each.id for each in played.lease(9, "c")] == ["2"]
    assert played.leases.progress() == (0, 3, 2)
    assert ahead.counts() == (0, 0, 1)


def test_a_runner_has_as_many_as_it_has_places(make: Make) -> None:
    """Counted when they are handed out: one that asked while it was busy, and waits, gets what is free by then."""
    played = make(9)
    first, second = played.lease(2)
    assert played.lease(2) == [] and len(played.lease(2, "other")) == 2
    played.leases.end(end(first.key))
    [third] = played.lease(2)
    played.leases.end(end(second.key))
    played.leases.end(end(third.key))
    assert len(played.lease(2)) == 2


@pytest.mark.parametrize(
    ("rollouts", "exit_code", "status", "said"),
    [
        (1, 3, Status.AGENT_ERROR, "the agent ended its process with exit code 3"),
        (2, 3, Status.INFRASTRUCTURE_ERROR, "ended with exit code 3 while 2 rollouts ran in it"),
        (1, -9, Status.INFRASTRUCTURE_ERROR, "was killed by signal 9 while 1 rollout ran in it"),
    ],
)
def test_a_runner_whose_process_ended(make: Make, rollouts: int, exit_code: int, status: Status, said: str) -> None:
    """Whose fault it was is known where one rollout ran in it that exited; otherwise it is nobody's."""
    played = make(rollouts, retries=0)
    played.lease(rollouts)
    assert played.leases.release("r", exit_code) == rollouts and played.leases.release("r", exit_code) == 0
    outcomes = played.leases.outcomes(played.queue)
    assert [each.status for each in outcomes] == [status] * rollouts
    assert all(said in each.error for each in outcomes)


def test_the_oldest_round_comes_first(make: Make) -> None:
    """Also with what it tries again or refills; a round that asks to be the first one is handed out before."""
    played = make(2, refills=1)
    ahead = played.another([5, 6])
    first, second, third = played.lease(3)
    assert [each.id for each in (first, second, third)] == ["0", "1", "5"]
    played.leases.end(end(first.key, Status.TIMEOUT))
    played.leases.end(end(second.key, Status.AGENT_ERROR))
    assert [each.group for each in played.lease(3)] == ["g1", "g0"]
    urgent = played.another([7], first=True)
    [seventh] = played.lease(4)
    assert seventh.id == "7"
    played.leases.end(end(third.key))
    played.leases.end(end(seventh.key))
    assert (urgent.over(), played.over(), ahead.over()) == (True, False, False)
    assert urgent.outcomes() == [("g7", "ok", 1)]
    assert [status for _, status, _ in ahead.outcomes()] == ["ok", "infrastructure_error"]


def test_a_runner_that_goes_in_order_gives_back(make: Make) -> None:
    """Its rollouts are handed out again at once."""
    played = make(2)
    played.lease(2)
    played.leases.release("r")
    assert [each.attempt for each in played.lease(2, "other")] == [2, 2]


def test_a_lease_that_could_not_be_delivered_costs_no_attempt(make: Make) -> None:
    """The runner had gone while its request was parked."""
    played = make(1)
    given = played.lease(1, "gone")
    played.leases.undo(given)
    [again] = played.lease(1, "other")
    assert (again.attempt, again.key == given[0].key) == (1, False)
    assert not played.leases.end(end(given[0].key))
    played.leases.end(end(again.key))
    assert played.over()


def test_a_step_past_its_deadline(make: Make, store: Store) -> None:
    """What is not over counts as a timeout, is neither tried again nor replaced, and cannot end any more."""
    played = make(3, retries=5, refills=5, seconds=0.1, bound="rollouts.deadline")
    done, late = played.lease(2)
    played.leases.position = lambda: 77
    played.leases.end(end(done.key))
    played.wait(0.09)
    assert not played.over()
    played.wait(0.02)
    assert played.over()
    assert not played.leases.add(played.queue, [assignment(8, 60.0)])
    assert not played.leases.end(end(late.key))
    assert played.lease() == []
    first, second, third = played.close()
    assert [each.status for each in (first, second, third)] == ["ok", "timeout", "timeout"]
    assert "not over within 0.1 s (rollouts.deadline)" in second.error
    assert "before a runner took it" in third.error
    assert played.queue.overdue == 2
    assert (first.until, second.until) == (None, 77)
    assert store.statuses()["timeout"] == 1


def test_a_round_that_nobody_takes_ends_too(make: Make) -> None:
    """Its time runs from when it is waited for; one that is ahead, and not waited for, has its time before it."""
    played = make(1, seconds=0.05)
    played.wait(0.1)
    assert not played.over()
    played.wait(0.1)
    assert played.over()


def test_a_round_that_is_closed(make: Make) -> None:
    """What is under way has timed out; what nobody took says so; nothing is tried again or handed out."""
    played = make(2, retries=5)
    played.lease(1)
    first, second = played.close("the run ended")
    assert (first.status, second.status) == ("timeout", "infrastructure_error")
    assert "the run ended" in first.error
    assert "before a runner took it" in second.error
    assert played.leases.progress() == (0, 0, 0)
    assert played.lease() == []


def test_large_tasks_are_handed_out_as_one_answer_can_carry(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease has as many as fit, one at least, in order; the next one has the rest, and none counts as tried."""
    monkeypatch.setattr("lightning_hub.rollouts.leases._LEASE_CHARACTERS", 250)
    leases = make(0).leases
    tasks = [replace(assignment(number, 60.0), task={"q": "x" * 100}) for number in range(4)]
    tasks[0] = replace(tasks[0], task={"q": "x" * 500})
    leases.open_round(tasks, Rules(), 64)
    handed = [[(each.group, each.attempt) for each in leases.lease("r", 99)] for _ in range(4)]
    assert handed == [[("g0", 1)], [("g1", 1), ("g2", 1)], [("g3", 1)], []]
    assert leases.progress() == (0, 4, 0)


def test_no_lease_is_lost_to_a_standstill_of_the_hub(make: Make) -> None:
    """No runner was silent, no rollout slow and no round late: nobody listened."""
    played = make(1, lease_seconds=5.0, timeout=5.0, grace_seconds=0.0, seconds=5.0, retries=0)
    [given] = played.lease()
    played.wait(60.0)
    assert played.leases.renew("r") == [given.key]
    played.time.advance(60.0)
    played.leases.expire(paused=True)
    assert played.leases.renew("r") == [given.key]
    for _ in range(4):  # while it runs, its time does too
        assert played.leases.renew("r") == [given.key]
        played.wait(1.0)
    assert played.leases.renew("r") == []
    assert played.outcomes() == [("g0", "timeout", 1)]


def test_a_runner_whose_end_is_watched_may_be_silent(make: Make) -> None:
    """As an agent is that keeps the interpreter to itself; it is over once its process has ended, or its time is up."""
    played = make(2, lease_seconds=0.05)
    kept = played.leases.lease("watched", 1, watched=True)
    [lost] = played.leases.lease("silent", 1)
    played.wait(0.1)
    assert played.leases.renew("watched") == [kept[0].key] and played.leases.renew("silent") == []
    assert played.leases.release("watched", -9) == 1
    assert {each.id for each in played.lease()} == {kept[0].id, lost.id}


def test_what_cannot_be_stored_is_handed_out_later(make: Make, store: Store) -> None:
    """While the database is full nothing is handed out and nothing is lost; ends are written once it can be."""
    played = make(2)
    [first] = played.lease(1)
    store.rows("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        played.lease()
    assert played.leases.release("r") == 1
    store.rows("PRAGMA query_only = OFF")
    assert {each.id for each in played.lease()} == {"0", "1"}
    played.leases.expire()
    assert store.rows("SELECT status FROM rollouts WHERE key = ?", first.key) == [("infrastructure_error",)]


def test_a_runner_whose_connection_ended_is_gone_unless_it_comes_back(make: Make) -> None:
    """A process that ends closes it, long before its silence counts; a network that broke is mended by the runner."""
    played = make(2)
    [lost] = played.leases.lease("lost", 1)
    [kept] = played.leases.lease("back", 1)
    played.leases.vanish("lost")
    played.leases.vanish("back")
    assert played.leases.renew("back") == [kept.key]
    for _ in range(2):
        assert played.leases.renew("back") == [kept.key] and played.lease() == []
        played.wait(1.6)
    assert played.leases.renew("back") == [kept.key]
    assert [each.id for each in played.lease()] == [lost.id]
