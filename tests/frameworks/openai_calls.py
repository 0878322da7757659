"""Every kind of call that the OpenAI SDK has, and the clients that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from openai import AsyncOpenAI, OpenAI

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Calculate 12 + 30."}]}
LONG: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 48}
SEAM = (
    "BaseClient._build_request",
    "SyncAPIClient.request",
    "AsyncAPIClient.request",
    "SyncAPIClient._process_response",
    "AsyncAPIClient._process_response",
)


def text(reply: Any) -> str:
    return reply.choices[0].message.content or ""


def join(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def ajoin(chunks: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


# --- every kind of call


def create(client: OpenAI) -> str:
    return text(client.chat.completions.create(**ASK))


def parse(client: OpenAI) -> str:
    return text(client.chat.completions.parse(**ASK))


def stream(client: OpenAI) -> str:
    return join(client.chat.completions.create(**ASK, stream=True))


def stream_with_usage(client: OpenAI) -> str:
    return join(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))


def stream_helper(client: OpenAI) -> str:
    with client.chat.completions.stream(**ASK) as events:
        return text(events.get_final_completion())


def raw(client: OpenAI) -> str:
    return text(client.chat.completions.with_raw_response.create(**ASK).parse())


def raw_stream(client: OpenAI) -> str:
    return join(client.chat.completions.with_raw_response.create(**ASK, stream=True).parse())


def streaming_response(client: OpenAI) -> str:
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        return text(response.parse())


def completions(client: OpenAI) -> str:
    return client.completions.create(model="gpt-3.5-turbo-instruct", prompt="12 + 30 =", max_tokens=8).choices[0].text


def with_options(client: OpenAI) -> str:
    return text(client.with_options(timeout=30).chat.completions.create(**ASK, extra_body={"top_p": 1.0}))


async def acreate(client: AsyncOpenAI) -> str:
    return text(await client.chat.completions.create(**ASK))


async def astream(client: AsyncOpenAI) -> str:
    return await ajoin(await client.chat.completions.create(**ASK, stream=True))


async def astream_helper(client: AsyncOpenAI) -> str:
    async with client.chat.completions.stream(**ASK) as events:
        return text(await events.get_final_completion())


async def araw_stream(client: AsyncOpenAI) -> str:
    return await ajoin((await client.chat.completions.with_raw_response.create(**ASK, stream=True)).parse())


async def astreaming_response(client: AsyncOpenAI) -> str:
    async with client.chat.completions.with_streaming_response.create(**ASK) as response:
        return text(await response.parse())


SYNC = [
    create,
    parse,
    stream,
    stream_with_usage,
    stream_helper,
    raw,
    raw_stream,
    streaming_response,
    completions,
    with_options,
]
STREAMED = [stream, stream_with_usage, stream_helper, raw_stream]
ASYNC = [acreate, astream, astream_helper, araw_stream, astreaming_response]


@contextmanager
def clients(wire: Any, **options: Any) -> Iterator[tuple[OpenAI, Callable[..., Any]]]:
    """A user's client, and how to run an async kind of call on an async one, closed in its own loop."""
    settings = {"base_url": wire.url, "api_key": "mine", "max_retries": 0, **options}

    async def on_async(kind: Callable[[AsyncOpenAI], Any]) -> Any:
        async with AsyncOpenAI(**settings) as client:
            return await kind(client)

    with OpenAI(**settings) as client:
        yield client, on_async
