"""`@agent` keeps a function what it is, and gives each call the innermost role, however the function runs."""

import asyncio
import contextvars
import gc
import inspect
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, process, thread
from multiprocessing.pool import Pool
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.trace.scope import current_scope
from tests.sdk.recorder import Recorder


def role() -> str:
    return current_scope().role


@lightning.agent(role="plain", trainable=True)
def plain(a: int, *, b: str = "x") -> str:
    """Doc."""
    return role()


@lightning.agent(role="coroutine")
async def coroutine() -> str:
    await asyncio.sleep(0)
    return role()


@lightning.agent(role="generator")
def generator() -> Iterator[str]:
    yield role()
    yield role()


@lightning.agent(role="asyncgen")
async def asyncgen() -> AsyncIterator[str]:
    yield role()
    await asyncio.sleep(0)
    yield role()


def test_signature_and_kind_are_kept() -> None:
    """Frameworks that inspect a function see the same function."""
    assert str(inspect.signature(plain)) == "(a: int, *, b: str = 'x') -> str"
    assert plain.__doc__ == "Doc." and plain.__name__ == "plain"
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(asyncgen)


def test_role_is_set_inside_and_gone_outside() -> None:
    """The role holds for every kind of function and never leaks to the caller, not even between two steps."""
    assert plain(1) == "plain" and role() == ""
    for seen in generator():
        assert (seen, role()) == ("generator", "")

    async def main() -> None:
        assert await coroutine() == "coroutine" and role() == ""
        async for seen in asyncgen():
            assert (seen, role()) == ("asyncgen", "")

    asyncio.run(main())


def test_result_decides_where_the_function_does_not_tell() -> None:
    """A plain function that returns a coroutine or a generator is an agent while that runs."""

    @lightning.agent(role="lazy")
    def lazy(kind: str) -> Any:
        return {"coroutine": coroutine_body, "generator": generator_body, "asyncgen": asyncgen_body}[kind]()

    async def coroutine_body() -> str:
        return role()

    def generator_body() -> Iterator[str]:
        yield role()

    async def asyncgen_body() -> AsyncIterator[str]:
        yield role()

    async def main() -> None:
        assert await lazy("coroutine") == "lazy"
        assert list(lazy("generator")) == ["lazy"]
        assert [each async for each in lazy("asyncgen")] == ["lazy"]

    asyncio.run(main())
    assert role() == ""


def test_nested_agents_keep_their_own_role() -> None:
    """The innermost agent speaks, and the outer one again once it is done."""

    @lightning.agent(role="outer")
    def outer() -> list[str]:
        steps = generator()
        return [role(), plain(1), role(), next(steps), role(), next(steps), role()]

    assert outer() == ["outer", "plain", "outer", "generator", "outer", "generator", "outer"]


def test_methods_of_all_sorts() -> None:
    """Methods, class methods and static methods can be agents, whichever decorator is above."""

    class Team:
        name = "team"

        @lightning.agent
        def method(self) -> tuple[str, str]:
            return self.name, role()

        @lightning.agent(role="above")
        @classmethod
        def above(cls) -> tuple[str, str]:
            return cls.name, role()

        @staticmethod
        @lightning.agent(role="below")
        def below() -> str:
            return role()

    assert Team().method() == ("team", "method")
    assert Team.above() == ("team", "above")
    assert Team.below() == Team().below() == "below"


def test_generators_pass_everything_through() -> None:
    """send, throw, close and return values reach the agent, each within its role."""
    closed: list[str] = []

    @lightning.agent(role="talker")
    def talker() -> Any:
        try:
            got = yield role()
            try:
                yield got
            except KeyError:
                yield "caught in " + role()
            return "done"
        finally:
            closed.append(role())

    steps = talker()
    assert next(steps) == "talker"
    assert steps.send(5) == 5
    assert steps.throw(KeyError()) == "caught in talker"
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "done" and closed == ["talker"]
    steps = talker()
    next(steps)
    steps.close()
    assert closed == ["talker", "talker"]


def test_async_generators_pass_everything_through() -> None:
    """asend, athrow and aclose reach the agent."""
    closed: list[str] = []

    @lightning.agent(role="talker")
    async def talker() -> Any:
        try:
            got = yield 1
            try:
                yield got
            except KeyError:
                yield "caught in " + role()
        finally:
            closed.append(role())

    async def main() -> None:
        steps = talker()
        assert await anext(steps) == 1
        assert await steps.asend(5) == 5
        assert await steps.athrow(KeyError()) == "caught in talker"
        await steps.aclose()

    asyncio.run(main())
    assert closed == ["talker"]


def test_scope_follows_tasks_threads_and_pools() -> None:
    """Tasks, plain threads and pools started by an agent speak in its role; a pool's thread forgets it afterwards."""
    lightning.init()
    seen: dict[str, str] = {}

    @lightning.agent(role="boss")
    def boss(pool: ThreadPoolExecutor) -> None:
        thread = threading.Thread(target=lambda: seen.update(thread=role()))
        thread.start()
        thread.join()
        seen["pool"] = pool.submit(role).result()
        seen["map"] = next(iter(pool.map(lambda _: role(), [1])))
        seen["to_thread"] = asyncio.run(asyncio.to_thread(role))

        async def gather() -> list[str]:
            return await asyncio.gather(coroutine(), asyncio.create_task(asyncio.sleep(0, role())))

        seen["tasks"] = "+".join(asyncio.run(gather()))

    with ThreadPoolExecutor(1) as pool:
        boss(pool)
        assert seen == {"thread": "boss", "pool": "boss", "map": "boss", "to_thread": "boss", "tasks": "coroutine+boss"}
        assert pool.submit(role).result() == ""


def test_a_thread_runs_its_own_method_as_others_see_it() -> None:
    """eventlet lets `join` return only where it finds that what runs is a method of the thread, and `threading`'s."""
    lightning.init()

    @lightning.agent(role="boss")
    def boss(thread: Any) -> Any:
        return thread._bootstrap

    thread = threading.Thread(target=role)
    found = boss(thread)
    assert found is not threading.Thread._bootstrap
    assert found.__self__ is thread and found.__module__ == "threading"


class Later:
    """What client libraries return: an object that works when it is awaited or iterated over."""

    def __init__(self) -> None:
        self.left, self.kind = 2, "later"

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return role()

    def __iter__(self) -> "Later":
        return self

    def __next__(self) -> str:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return role()

    def __aiter__(self) -> "Later":
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return role()


@lightning.agent(role="lazy")
def later() -> Any:
    return Later()


def test_an_object_that_works_later_keeps_its_role(recorder: Recorder) -> None:
    """Awaitables, iterators and async iterators that a plain function returns work in its role, and alone do."""

    async def use() -> None:
        assert await later() == "lazy" and role() == ""
        assert [(each, role()) async for each in later()] == [("lazy", "")] * 2

    asyncio.run(use())
    assert [(each, role()) for each in later()] == [("lazy", "")] * 2
    assert list(lightning.agent(role="mapped")(lambda: map(lambda _: role(), "ab"))()) == ["mapped"] * 2  # noqa: C417
    assert [span.name for span in recorder.spans] == ["invoke_agent lazy"] * 3 + ["invoke_agent mapped"]


def test_an_object_that_works_later_stays_what_it_is(recorder: Recorder) -> None:
    """It has its class and its attributes, which can be set; one that is thrown away ends its turn."""
    found = later()
    assert isinstance(found, Later) and found.kind == "later" and iter(found) is found
    found.kind = "other"
    assert found.__wrapped__.kind == "other"
    del found
    gc.collect()
    assert [span.status for span in recorder.spans] == ["cancelled"]


def test_tasks_and_files_are_handed_on() -> None:
    """A task runs in the scope that it was made in, and a file is not work."""

    @lightning.agent(role="starter")
    def start(kind: str) -> Any:
        return asyncio.ensure_future(coroutine_of_role()) if kind == "task" else tempfile.TemporaryFile()

    async def coroutine_of_role() -> str:
        return role()

    async def use() -> None:
        task = start("task")
        assert type(task) is asyncio.Task and await task == "starter"

    asyncio.run(use())
    with start("file") as file:
        assert not hasattr(file, "__wrapped__")


def test_what_other_tools_replace_is_left_alone() -> None:
    """`Thread.start`, `Thread.run` and `submit` stay what they are, and `shutdown()` restores what we do replace."""
    theirs = {threading.Thread: ("start", "run"), ThreadPoolExecutor: ("submit",), ProcessPoolExecutor: ("submit",)}
    before = [getattr(owner, name) for owner, names in theirs.items() for name in names]
    owners = (threading.Thread, ThreadPoolExecutor, ProcessPoolExecutor, Pool, thread._WorkItem, process._WorkItem)
    held = [dict(vars(owner)) for owner in owners]
    lightning.init()
    assert before == [getattr(owner, name) for owner, names in theirs.items() for name in names]
    assert all(dict(vars(owner)) != old for owner, old in zip(owners, held, strict=True))
    lightning.shutdown()
    assert held == [dict(vars(owner)) for owner in owners]


def test_coroutine_finished_in_another_context() -> None:
    """A coroutine that is closed elsewhere than it ran neither raises nor leaks its role."""

    class Forever:
        def __await__(self) -> Iterator[None]:
            yield

    @lightning.agent(role="moved")
    async def move() -> None:
        await Forever()

    running = move()
    contextvars.copy_context().run(running.send, None)
    running.close()
    assert role() == ""


def test_spans_tell_the_tree(recorder: Recorder) -> None:
    """Each run of an agent is a span with its parent, its end and its error, under OpenTelemetry's names."""

    @lightning.agent(role="inner")
    def inner() -> None:
        raise ValueError("no")

    @lightning.agent(role="outer")
    def outer() -> None:
        with pytest.raises(ValueError, match="no"):
            inner()

    outer()
    first, second = recorder.spans
    assert (first.role, first.status, first.error) == ("inner", "error", "ValueError: no")
    assert (second.role, second.status, first.parent, second.parent) == ("outer", "ok", second.id, "")
    assert second.attributes == {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "outer"}
    assert second.started_ns <= first.started_ns <= first.ended_ns <= second.ended_ns


def test_what_cannot_be_an_agent_is_refused() -> None:
    """A class and a number are refused with what to do instead."""
    with pytest.raises(lightning.SettingError, match="class Team: put it above the method"):

        @lightning.agent
        class Team:
            pass

    with pytest.raises(lightning.SettingError, match="cannot be called"):
        lightning.agent(role="x")(5)  # type: ignore[type-var]
