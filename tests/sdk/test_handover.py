"""A worker that takes items out of a queue works for the rollout that put them there, or for none and says so."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

END = (9, "end")


@pytest.fixture(autouse=True)
def start(recorder: Recorder) -> None:
    lightning.init(integrations={"openai"})


@pytest.fixture
def ask(provider: Provider) -> Iterator[Callable[[str], str]]:
    with OpenAI(base_url=provider.url, api_key="k", max_retries=0) as client:

        def ask(text: str) -> str:
            reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            return str(reply.choices[0].message.content)

        yield ask


def filing(recorder: Recorder) -> dict[str, set[str]]:
    """What was asked -> rollouts ('nobody' for none) that such calls are filed under, by the texts of their tasks."""
    names = {event[1]: event[3]["text"] for event in recorder.of(Event.BEGIN)} | {NO_ROLLOUT: "nobody"}
    found: dict[str, set[str]] = {}
    for event, call in zip(recorder.of(Event.REPLY), recorder.calls, strict=True):
        text = call.request.decode().split('"content":"')[1].split('"')[0]
        found.setdefault(text, set()).add(names[event[1]])
    return found


def work(jobs: "queue.Queue[Any]", act: Callable[[Any], Any]) -> threading.Thread:
    """A worker that ends at END."""

    def loop() -> None:
        while (item := jobs.get()) != END:
            act(item)
            jobs.task_done()

    thread = threading.Thread(target=loop, name="worker")
    thread.start()
    return thread


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
def test_a_worker_works_for_who_put_the_item(
    recorder: Recorder, ask: Callable[[str], str], kind: "type[queue.Queue[Any]]"
) -> None:
    """The first rollout starts it while others are under way; what comes from outside afterwards belongs to nobody."""
    jobs = kind()
    with lightning.rollout({"text": "one"}):
        worker = work(jobs, lambda item: ask(item[1]))
        with lightning.rollout({"text": "two"}):
            for number in range(3):
                jobs.put((number, "of two"))
            jobs.join()
        jobs.put((0, "of one"))
        jobs.join()
    with lightning.rollout({"text": "three"}):
        jobs.put((0, "of three"))
        jobs.join()
    jobs.put((0, "of nobody"))
    jobs.join()
    jobs.put(END)
    worker.join(60)
    assert filing(recorder) == {f"of {name}": {name} for name in ("one", "two", "three", "nobody")}


def test_a_worker_that_was_there_before_the_rollouts(recorder: Recorder, ask: Callable[[str], str]) -> None:
    """It inherited nothing and works for each rollout that gives it something to do."""
    jobs: queue.Queue[Any] = queue.Queue()
    worker = work(jobs, lambda item: ask(item["text"]))
    for name in ("one", "two"):
        with lightning.rollout({"text": name}):
            jobs.put({"text": f"of {name}"})
            jobs.join()
    jobs.put(END)
    worker.join(60)
    assert filing(recorder) == {"of one": {"one"}, "of two": {"two"}}


def test_a_worker_keeps_the_role_of_an_agent_that_runs_in_it(recorder: Recorder, ask: Callable[[str], str]) -> None:
    """The innermost agent is nearer than the one that put the item."""
    jobs: queue.Queue[Any] = queue.Queue()

    @lightning.agent(role="writer")
    def loop() -> None:
        while (item := jobs.get()) != END:
            ask(item[0])
            jobs.task_done()

    @lightning.agent(role="boss")
    def boss(*items: Any) -> None:
        for item in items:
            jobs.put(item)
        jobs.join()

    with lightning.rollout({"text": "one"}):
        worker = threading.Thread(target=loop)
        worker.start()
        with lightning.rollout({"text": "two"}):
            boss(("of two",))
    jobs.put(END)
    worker.join(60)
    assert filing(recorder) == {"of two": {"two"}} and recorder.calls[0].meta.role == "writer"


def test_what_is_lent_makes_nobody_a_worker(recorder: Recorder, ask: Callable[[str], str]) -> None:
    """An agent that takes a client that another rollout put back stays in its rollout, and so does its pool's work."""
    clients: queue.Queue[Any] = queue.Queue()

    def borrow(text: str) -> None:
        client = clients.get()
        ask(text)
        clients.put(client)

    with lightning.rollout({"text": "one"}):
        clients.put((OpenAI, "a client"))
        with lightning.rollout({"text": "two"}):
            borrow("of two")
            from multiprocessing.pool import ThreadPool  # noqa: PLC0415

            with ThreadPool(1) as pool:
                with lightning.rollout({"text": "three"}):
                    borrow("of three")
                pool.apply(borrow, ("of two's pool",))
    assert filing(recorder) == {"of two": {"two"}, "of three": {"three"}, "of two's pool": {"two"}}


def test_a_thread_that_takes_what_may_be_lent_works_for_nobody(
    recorder: Recorder, ask: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be known whether the number is a piece of work or a device: that is said, once."""
    numbers: queue.Queue[Any] = queue.Queue()
    with lightning.rollout({"text": "one"}):
        worker = work(numbers, lambda number: ask(f"number {number}"))
        numbers.put(1)
        numbers.join()
        with lightning.rollout({"text": "two"}):
            numbers.put(2)
            numbers.put(3)
            numbers.join()
    numbers.put(END)
    worker.join(60)
    assert filing(recorder) == {"number 1": {"one"}, "number 2": {"nobody"}, "number 3": {"nobody"}}
    (said,) = [each for each in caplog.messages if "belongs to no rollout" in each]
    assert "'worker'" in said and "ThreadPoolExecutor" in said


def test_a_thread_outlives_its_rollout(
    recorder: Recorder, ask: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """What it does once its rollout is over belongs to no rollout, whatever it is for; rewards are refused there."""
    go, waiting, refused = threading.Event(), threading.Event(), []

    def act() -> None:
        ask("in time")
        waiting.set()
        go.wait(60)
        ask("too late")
        try:
            lightning.emit_reward(1.0)
        except lightning.RewardError as error:
            refused.append(str(error))

    with caplog.at_level(logging.WARNING), lightning.rollout({"text": "one"}):
        thread = threading.Thread(target=act)
        thread.start()
        waiting.wait(60)
    with lightning.rollout({"text": "two"}):
        go.set()
        thread.join(60)
    assert filing(recorder) == {"in time": {"one"}, "too late": {"nobody"}}
    assert any("is over" in each for each in caplog.messages) and "several rollouts share" in refused[0]


def test_workers_that_are_tasks(recorder: Recorder, provider: Provider) -> None:
    """A task that the first rollout starts and all share works for who put the item; each agent's task is its own."""
    client = AsyncOpenAI(base_url=provider.url, api_key="k", max_retries=0)

    async def ask(text: str) -> None:
        await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

    async def serve(jobs: "asyncio.Queue[Any]", results: "asyncio.Queue[Any]") -> None:
        while True:
            (text,) = await jobs.get()
            await ask(f"worker of {text}")
            await results.put((text, "answer"))

    async def main() -> None:
        jobs: asyncio.Queue[Any] = asyncio.Queue()
        results: asyncio.Queue[Any] = asyncio.Queue()
        workers: list[asyncio.Task[None]] = []

        async def solve(name: str) -> None:
            async with lightning.rollout({"text": name}):
                if not workers:
                    workers.append(asyncio.create_task(serve(jobs, results)))
                await jobs.put((name,))
                await results.get()  # perhaps of the other one
                await ask(f"agent of {name}")

        await asyncio.gather(solve("one"), solve("two"))
        workers[0].cancel()
        await client.close()

    asyncio.run(main())
    assert filing(recorder) == {f"{who} of {name}": {name} for who in ("worker", "agent") for name in ("one", "two")}


def test_queues_work_as_ever() -> None:
    """Order, sizes, full and empty queues and items that left by another way are as without us."""
    few: queue.Queue[Any] = queue.Queue(1)
    with lightning.rollout():
        few.put("a")
        with pytest.raises(queue.Full):
            few.put_nowait("b")
        few.queue.clear()
        few.put_nowait("a")
        assert few.get_nowait() == "a" and few.empty()
        with pytest.raises(queue.Empty):
            few.get_nowait()
        first: queue.PriorityQueue[int] = queue.PriorityQueue()
        for number in (3, 1, 2):
            first.put(number)
        assert [first.get() for _ in range(3)] == [1, 2, 3]
    before = queue.Queue._put
    lightning.shutdown()
    assert queue.Queue._put is not before and not hasattr(queue.Queue._put, "__wrapped__")
