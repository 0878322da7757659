"""The OpenAI SDK: whose call it is, when agents take turns, in threads, and in runtimes older than the rollout."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning
from tests.frameworks.openai_calls import ASK, acreate, ajoin, clients, create
from tests.frameworks.same import assert_all_trained, assert_same_ids

# --- who speaks


def test_two_agents_interleaved(wire, capture) -> None:
    """Two agents on one loop, each step of one between steps of the other: each call has its own agent's role."""

    async def dialogue(client: AsyncOpenAI) -> None:
        turns = [asyncio.Event() for _ in range(7)]
        turns[0].set()

        async def speak(mine: range) -> None:
            for turn in mine:
                await turns[turn].wait()
                await ajoin(await client.chat.completions.create(**ASK, stream=True))
                turns[turn + 1].set()

        writer = lightning.agent(role="writer", trainable=True)(speak)
        critic = lightning.agent(role="critic")(speak)
        await asyncio.gather(writer(range(0, 6, 2)), critic(range(1, 6, 2)))

    with clients(wire) as (_, on_async):
        run = capture(on_async, dialogue)
    assert run.roles == ["writer", "critic"] * 3
    assert [call.trainable for call in run.calls] == [True, False] * 3
    assert [each.face for each in run.exchanges] == ["engine", "provider"] * 3
    for call in run.calls[::2]:
        assert_same_ids(call, wire)


def test_generators_interleaved(wire, capture) -> None:
    """Agents that are generators, stepped in turn by code outside of them, whose own calls belong to no agent."""

    def lines(client: OpenAI) -> Iterator[str]:
        for _ in range(2):
            yield create(client)

    def stage(client: OpenAI) -> None:
        one = lightning.agent(role="one", trainable=True)(lines)(client)
        two = lightning.agent(role="two", trainable=True)(lines)(client)
        for _ in zip(one, two, strict=True):
            create(client)

    with clients(wire) as (client, _):
        run = capture(stage, client)
    assert_all_trained(run, wire, ["one", "two", "outer"] * 2)


def test_roles_that_are_trained_by_name(wire, capture) -> None:
    """`roles=` chooses, whatever the decorators say."""

    @lightning.agent(role="writer")
    def writer(client: OpenAI) -> str:
        return create(client)

    with clients(wire) as (client, _):
        run = capture(lambda: (writer(client), create(client)), roles=["writer"])
    assert [(call.role, call.trainable) for call in run.calls] == [("writer", True), ("outer", False)]


# --- runtimes


def test_threads(wire, capture, prove) -> None:
    """A pool that is older than the rollout, and plain threads: calls there belong to the rollout that asked."""
    with clients(wire) as (client, _), ThreadPoolExecutor(2) as pool:
        pool.submit(int).result()

        def agent() -> None:
            list(pool.map(lambda _: create(client), range(3)))
            thread = threading.Thread(target=create, args=(client,))
            thread.start()
            thread.join()

        first, second = capture(agent), capture(lambda: pool.submit(create, client).result())
    assert_all_trained(first, wire, ["outer"] * 4)
    assert_all_trained(second, wire, ["outer"])
    prove("OpenAI SDK", "openai", first, threads=True)


def test_a_long_lived_loop(wire, capture) -> None:
    """A loop in a thread that runs before `init()` and through several rollouts: each call is its own rollout's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    client = AsyncOpenAI(base_url=wire.url, api_key="mine")

    def agent() -> str:
        return asyncio.run_coroutine_threadsafe(acreate(client), loop).result(30)

    try:
        runs = [capture(agent) for _ in range(3)]
        asyncio.run_coroutine_threadsafe(acreate(client), loop).result(30)
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    for run in runs:
        assert_all_trained(run, wire, ["outer"])
    assert [(call.role, call.trainable) for call in capture.outside()] == [("", False)]


def test_a_long_lived_worker_behind_a_queue(wire, capture) -> None:
    """A worker that was started before any rollout speaks for none: its calls are recorded, and go where they went."""
    client = AsyncOpenAI(base_url=wire.url, api_key="mine")

    async def main() -> Any:
        wanted: asyncio.Queue[asyncio.Future[str] | None] = asyncio.Queue()

        async def work() -> None:
            while (future := await wanted.get()) is not None:
                future.set_result(await acreate(client))

        worker = asyncio.create_task(work())

        def agent() -> Any:
            async def ask() -> str:
                future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                await wanted.put(future)
                return await future

            return asyncio.create_task(ask())

        with lightning.rollout({}):
            await agent()
        await wanted.put(None)
        await worker
        await client.close()

    capture.init()
    asyncio.run(main())
    assert [(call.role, call.trainable, call.status) for call in capture.outside()] == [("", False, "ok")]
    assert len(wire.provider) == 1 and wire.engine == []
