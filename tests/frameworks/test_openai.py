"""The OpenAI SDK, 2 and 3: every kind of call and of end is caught once, with the ids that the engine sampled."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import lightning_sdk as lightning
from lightning_sdk.trace.scope import Endpoint
from tests.frameworks.openai_calls import (
    ASK,
    ASYNC,
    LONG,
    SEAM,
    STREAMED,
    SYNC,
    acreate,
    clients,
    create,
    raw_stream,
    stream,
    text,
)
from tests.frameworks.same import assert_all_trained, assert_same_bytes, assert_same_ids


@pytest.mark.parametrize("kind", SYNC)
def test_every_kind_of_call(wire, capture, prove, kind: Callable[[OpenAI], str]) -> None:
    """One trained call, made with a client older than `init()`: caught once, with its ids."""
    with clients(wire) as (client, _):
        run = capture(kind, client)
    assert_all_trained(run, wire, ["outer"])
    assert run.calls[0].framework == "openai" and run.calls[0].streamed == (kind in STREAMED)
    assert run.answer == (run.calls[0].message["content"] or "")
    prove("OpenAI SDK", "openai", run)


@pytest.mark.parametrize("kind", ASYNC)
def test_every_kind_of_async_call(wire, capture, prove, kind: Callable[[AsyncOpenAI], Any]) -> None:
    """The same on asyncio."""
    with clients(wire) as (_, on_async):
        run = capture(on_async, kind)
    assert_all_trained(run, wire, ["outer"])
    assert run.answer == (run.calls[0].message["content"] or "")
    prove("OpenAI SDK", "openai", run, async_=True)


def test_same_bytes_with_training_off(wire, capture) -> None:
    """Active and not training, inside a rollout and outside of one, the SDK changes no byte of any kind of call."""
    with clients(wire) as (client, on_async):

        def all_of_them() -> list[str]:
            return [kind(client) for kind in SYNC] + [asyncio.run(on_async(kind)) for kind in ASYNC]

        answers = all_of_them()
        before = wire.clear()
        run = capture(all_of_them, train=False)
        assert_same_bytes(before, wire.clear())
        assert run.answer == answers and len(run.calls) == len(before) and not any(c.trainable for c in run.calls)
        assert [call.raw.request for call in run.calls] == [each.body for each in before]
        assert all_of_them() == answers
        assert_same_bytes(before, wire.clear())
        assert len(capture.outside()) == len(before)
        lightning.shutdown()
        assert all_of_them() == answers
        assert_same_bytes(before, wire.clear())


def test_everything_is_put_back(wire, capture, touched_names) -> None:
    """After `shutdown()` the SDK's classes have the very functions they had."""
    with clients(wire) as (client, _):
        capture(create, client)
        touched_names.assert_restored(*SEAM)


# --- objects built before init()


def test_objects_built_before_init(wire, capture) -> None:
    """Bound methods and raw objects that the user made and kept before `init()` are caught as well."""
    with clients(wire) as (client, _):
        kept = [
            client.chat.completions.create,
            client.chat.completions.with_raw_response.create,
            client.chat.completions.parse,
        ]
        copy = client.copy()
        run = capture(lambda: [each(**ASK) for each in kept] + [copy.chat.completions.create(**ASK)])
    assert_all_trained(run, wire, ["outer"] * 4)


def test_async_objects_built_before_init(wire, capture) -> None:
    """The same for an async raw object."""
    client = AsyncOpenAI(base_url=wire.url, api_key="mine")
    kept = client.chat.completions.with_raw_response.create

    async def agent() -> str:
        async with client:
            return text((await kept(**ASK)).parse())

    run = capture(agent)
    assert_all_trained(run, wire, ["outer"])


# --- how a stream ends


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("ending", ["close", "leave"])
def test_a_stream_that_is_left(wire, capture, ending: str, raw: bool) -> None:
    """Closed, or broken off and forgotten: recorded once, as cancelled, with the ids of what was read."""

    def read_some(client: OpenAI) -> None:
        where = client.chat.completions.with_raw_response if raw else client.chat.completions
        chunks = where.create(**LONG, stream=True)
        chunks = chunks.parse() if raw else chunks
        for number, _ in enumerate(chunks):
            if number == 2:
                break
        if ending == "close":
            chunks.close()

    def agent(client: OpenAI) -> None:
        read_some(client)
        gc.collect()  # the SDK's streams are cycles

    with clients(wire) as (client, _):
        run = capture(agent, client)
    (call,) = run.calls
    assert (call.status, call.error, call.streamed) == ("cancelled", "closed before its end", True)
    assert_same_ids(call, wire)


def test_an_async_stream_that_is_left(wire, capture) -> None:
    """An async stream that is closed early."""

    async def agent(client: AsyncOpenAI) -> None:
        chunks = await client.chat.completions.create(**LONG, stream=True)
        async for chunk in chunks:
            if chunk.choices[0].delta.content:
                break
        await chunks.close()

    with clients(wire) as (_, on_async):
        run = capture(on_async, agent)
    assert [call.status for call in run.calls] == ["cancelled"]
    assert_same_ids(run.calls[0], wire)


def test_a_stream_that_is_never_read(wire, capture) -> None:
    """Asked for and dropped: one call, cancelled, nothing to learn from."""

    def agent(client: OpenAI) -> None:
        client.chat.completions.create(**ASK, stream=True)
        gc.collect()

    with clients(wire) as (client, _):
        run = capture(agent, client)
    assert [(call.status, call.completion_ids) for call in run.calls] == [("cancelled", [])]


# --- errors


def test_a_refused_call(wire, capture) -> None:
    """400: the agent gets its own SDK's error, and the call says what the server said."""
    wire.fail(400)
    with clients(wire) as (client, _):
        run = capture(create, client, raises=openai.BadRequestError)
    (call,) = run.calls
    assert isinstance(run.error, openai.BadRequestError) and run.error.status_code == 400
    assert (call.status, call.http_status, call.trainable) == ("error", 400, True)
    assert "told to answer 400" in call.problem and call.error.startswith("BadRequestError")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_failing_server(wire, capture, asynchronous: bool) -> None:
    """500 until the client gives up: one call, as an error, for several requests."""
    wire.fail(500, 500, 500)
    with clients(wire, max_retries=2) as (client, on_async):
        agent, what = (on_async, acreate) if asynchronous else (create, client)
        run = capture(agent, what, raises=openai.InternalServerError)
    assert isinstance(run.error, openai.InternalServerError) and len(run.exchanges) == 3
    assert [(call.status, call.http_status) for call in run.calls] == [("error", 500)]


@pytest.mark.parametrize("kind", [create, stream, raw_stream])
def test_a_retry(wire, capture, kind: Callable[[OpenAI], str]) -> None:
    """500 and then an answer: one call, that of the answer, and both requests are the engine's."""
    wire.fail(500)
    with clients(wire, max_retries=1) as (client, _):
        run = capture(kind, client)
    assert [each.status for each in run.exchanges] == [500, 200] and wire.provider == []
    assert run.exchanges[0].body == run.exchanges[1].body
    assert [call.status for call in run.calls] == ["ok"]
    assert_same_ids(run.calls[0], wire)


def test_an_engine_that_is_gone(wire, capture) -> None:
    """Nobody listens: the agent gets its SDK's error, and never another model's answer."""
    with clients(wire) as (client, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(wire), "endpoint", Endpoint("http://127.0.0.1:9/v1", "spark", "key"))
        run = capture(create, client, raises=openai.APIConnectionError)
    assert run.exchanges == [] and [call.status for call in run.calls] == ["error"]
