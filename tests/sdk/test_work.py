"""Work belongs to the rollout that submitted it, whichever thread or process does it, no matter who started that."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.pool import Pool, ThreadPool
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, current_scope, use_scope
from tests.sdk.recorder import Recorder

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def start(recorder: Recorder) -> None:
    lightning.init(integrations=frozenset())


def whose(*_: object) -> str:
    """The rollout that is under way here, and the role."""
    scope = current_scope()
    return f"{scope.rollout.id if scope.rollout else 'nobody'} {scope.role}"


def in_rollout(name: str, act: Callable[[], Any]) -> Any:
    """`act` inside a rollout that is called `name`, in the role 'solver'."""
    with use_scope(Scope(rollout=RolloutScope(name, name.encode()), role="solver")):
        return act()


def tell(result: list[str]) -> Callable[[object], None]:
    return lambda _: result.append(whose())


@pytest.mark.parametrize("make", [lambda: ThreadPool(1), lambda: FORK.Pool(1)], ids=["threads", "processes"])
def test_work_in_a_pool_belongs_to_who_submitted_it(make: Callable[[], Pool]) -> None:
    """Whatever way it is submitted, and although the first rollout made the pool."""
    pool = in_rollout("first", make)
    ways: dict[str, Callable[[], Any]] = {
        "apply": lambda: pool.apply(whose),
        "apply_async": lambda: pool.apply_async(func=whose).get(20),
        "map": lambda: pool.map(whose, [1])[0],
        "map_async": lambda: pool.map_async(whose, [1]).get(20)[0],
        "starmap": lambda: pool.starmap(whose, [(1, 2)])[0],
        "imap": lambda: next(pool.imap(whose, [1])),
        "imap in chunks": lambda: next(iter(pool.imap(whose, [1, 2], 2))),
        "imap_unordered": lambda: next(pool.imap_unordered(whose, [1])),
    }
    with pool:
        assert {way: in_rollout("second", act) for way, act in ways.items()} == dict.fromkeys(ways, "second solver")
        assert {way: act() for way, act in ways.items()} == dict.fromkeys(ways, "nobody ")


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_work_in_an_executor_belongs_to_who_submitted_it(kind: str) -> None:
    """Also where the first rollout made the executor and its first worker."""
    executor = ThreadPoolExecutor(1) if kind == "threads" else ProcessPoolExecutor(1, FORK)
    with executor:
        assert in_rollout("first", lambda: executor.submit(whose).result(20)) == "first solver"
        assert in_rollout("second", lambda: executor.submit(whose).result(20)) == "second solver"
        assert in_rollout("third", lambda: next(executor.map(whose, [1]))) == "third solver"
        assert executor.submit(whose).result(20) == "nobody "


def test_callbacks_of_work_belong_to_who_submitted_it() -> None:
    """They run in a thread of the pool, which belongs to nobody."""
    seen: list[str] = []
    pool, executor = in_rollout("first", lambda: (ThreadPool(1), ThreadPoolExecutor(1)))

    def submit() -> Future[str]:
        pool.apply_async(whose, callback=tell(seen)).get(20)
        pool.map_async(int, ["x"], error_callback=tell(seen)).wait(20)
        future = executor.submit(threading.Event().wait, 0.05)
        future.add_done_callback(tell(seen))
        return future

    with pool, executor:
        in_rollout("second", submit).result(20)
    assert seen == ["second solver"] * 3


def test_an_initializer_belongs_to_nobody() -> None:
    """It runs for all who will submit work."""
    seen: list[str] = []

    def begin() -> None:
        with ThreadPool(1, tell(seen), (0,)) as pool, ThreadPoolExecutor(1, "", tell(seen), (0,)) as executor:
            pool.apply(whose)
            executor.submit(whose).result(20)

    in_rollout("first", begin)
    assert seen == ["nobody "] * 2


def test_items_are_drawn_where_they_come_from() -> None:
    """A generator given to `imap` runs in a thread of the pool, and belongs to who gave it."""
    pool = in_rollout("first", lambda: ThreadPool(1))

    def items() -> Iterator[str]:
        yield whose()
        yield whose()

    with pool:
        assert in_rollout("second", lambda: list(pool.imap(str, items()))) == ["second solver"] * 2


def look() -> tuple[Any, ...]:
    scope = current_scope()
    assert scope.rollout is not None
    return scope.rollout.id, scope.rollout.key, scope.endpoint(), scope.rollout.seed("a")


def test_work_in_another_process_is_the_rollouts() -> None:
    """It goes to the rollout's engine, with a different seed."""
    endpoint = Endpoint("http://engine", "m", "k")
    rollout = RolloutScope("trained", b"key", endpoint, {"rollout_seed": 7}, frozenset("a"))
    seeds = {rollout.seed("a")}
    with use_scope(Scope(rollout=rollout, role="a")), FORK.Pool(1) as pool:
        for _ in range(2):
            name, key, sent, seed = pool.apply(look)
            assert (name, key, sent) == ("trained", b"key", endpoint)
            seeds.add(seed)
    assert len(seeds | {rollout.seed("a")}) == 4
