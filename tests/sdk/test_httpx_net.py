"""The safety net: requests to a model that no seam caught are noticed, told in the rollout, and never altered."""

import asyncio
import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx2
import openai
import pytest

import lightning_sdk as lightning
from lightning_sdk.stream import notices
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

BODY = {"model": "gpt", "messages": [{"role": "user", "content": "abc"}]}
Post = Callable[[str, dict[str, Any]], bytes]


@pytest.fixture(autouse=True)
def net() -> Iterator[None]:
    """All integrations are on."""
    lightning.init()
    yield
    lightning.shutdown()


def by_httpx2(url: str, body: dict[str, Any]) -> bytes:
    with httpx2.Client() as client:
        return bytes(client.post(url, json=body).content)


def by_async_httpx2(url: str, body: dict[str, Any]) -> bytes:
    async def post() -> bytes:
        async with httpx2.AsyncClient() as client:
            return bytes((await client.post(url, json=body)).content)

    return asyncio.run(post())


def by_aiohttp(url: str, body: dict[str, Any]) -> bytes:
    async def post() -> bytes:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
            return await reply.read()

    return asyncio.run(post())


def by_urllib(url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return bytes(reply.read())


CLIENTS = [(by_httpx2, "httpx2"), (by_async_httpx2, "httpx2"), (by_aiohttp, "aiohttp"), (by_urllib, "http.client")]


def uncaught(recorder: Recorder) -> list[dict[str, Any]]:
    return [span.attributes for span in recorder.spans if span.name == notices.UNCAUGHT]


@pytest.mark.parametrize(("post", "client"), CLIENTS, ids=[post.__name__ for post, _ in CLIENTS])
def test_a_call_that_no_seam_caught_is_told(
    recorder: Recorder, provider: Provider, caplog: pytest.LogCaptureFixture, post: Post, client: str
) -> None:
    """It is a span of the rollout and the role, with host and path; the log says once what to do."""

    @lightning.agent(role="solver", trainable=True)
    def solve() -> None:
        for _ in range(2):
            assert b"cba" in post(f"{provider.url}/chat/completions", BODY)

    with caplog.at_level(logging.WARNING), lightning.rollout({}) as rollout:
        solve()
    spans = [span for span in recorder.spans if span.name == notices.UNCAUGHT]
    assert [span.role for span in spans] == ["solver"] * 2
    assert spans[0].attributes[notices.ADDRESS] == "127.0.0.1"
    assert spans[0].attributes[notices.PATH] == "/v1/chat/completions"
    assert spans[0].attributes[notices.CLIENT] == client
    assert spans[0].attributes.get(notices.MODEL) == (None if client == "http.client" else "gpt")
    turn = next(span for span in recorder.spans if span.name == "invoke_agent solver")
    assert spans[0].parent == turn.id
    assert {event[1] for event in recorder.events} == {rollout._scope.key}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "127.0.0.1/v1/chat/completions" in said[0] and "lightning-sdk gateway" in said[0]


@pytest.mark.parametrize(("post", "client"), CLIENTS, ids=[post.__name__ for post, _ in CLIENTS])
def test_the_request_is_not_altered(recorder: Recorder, provider: Provider, post: Post, client: str) -> None:
    """The same bytes and headers as without us."""
    post(f"{provider.url}/chat/completions", BODY)
    lightning.shutdown()
    post(f"{provider.url}/chat/completions", BODY)
    watched, plain = provider.requests
    assert (watched.raw, watched.headers) == (plain.raw, plain.headers)
    assert len(uncaught(recorder)) == 1


@pytest.mark.parametrize(
    ("path", "body", "noticed"),
    [
        ("/v1/messages", {}, True),
        ("/v1beta/models/gemini-x:generateContent", {"contents": []}, True),
        ("/v1beta/models/gemini-x:streamGenerateContent", {"contents": []}, True),
        ("/api/chat", {"model": "llama"}, True),
        ("/model/some.claude/converse", {"messages": []}, True),
        ("/openai/deployments/x/chat/completions", {}, True),
        ("/my/own/route", {"model": "m", "prompt": "p"}, True),
        ("/my/own/route", {"model": "m", "messages": []}, True),
        ("/my/own/route", {"model": "m"}, False),
        ("/v1/embeddings", {"model": "m", "input": "text"}, False),
        ("/channels/7/messages", {"content": "hello"}, False),
        ("/search", {"query": "messages"}, False),
    ],
)
def test_what_is_a_call_to_a_model(recorder: Recorder, path: str, body: dict[str, Any], noticed: bool) -> None:
    """By its path, or by a body with a model and something for it to answer."""
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200))) as client:
        client.post(f"https://api.example{path}", json=body)
        client.get(f"https://api.example{path}")
    assert len(uncaught(recorder)) == noticed


def test_a_call_that_a_seam_caught_is_not_told(recorder: Recorder, provider: Provider) -> None:
    """The OpenAI SDK goes through httpx2, and its seam has it already."""
    with openai.OpenAI(base_url=provider.url, api_key="k") as client:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "abc"}])
    assert len(recorder.calls) == 1
    assert uncaught(recorder) == []


def test_a_call_through_two_clients_is_one(recorder: Recorder, provider: Provider) -> None:
    """A transport of httpx that uses aiohttp, as LiteLLM's, does not tell again."""

    class Transport(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            async with (
                aiohttp.ClientSession() as session,
                session.post(str(request.url), data=request.content) as reply,
            ):
                return httpx2.Response(reply.status, content=await reply.read())

    async def post() -> None:
        async with httpx2.AsyncClient(transport=Transport()) as client:
            await client.post(f"{provider.url}/chat/completions", json=BODY)

    asyncio.run(post())
    assert [each[notices.CLIENT] for each in uncaught(recorder)] == ["httpx2"]


def test_a_call_that_fails_is_told_with_its_error(recorder: Recorder) -> None:
    """Nobody listens at that port; the error reaches the agent as it is."""
    with httpx2.Client() as client, pytest.raises(httpx2.ConnectError):
        client.post("http://127.0.0.1:9/v1/chat/completions", json=BODY)
    (span,) = (span for span in recorder.spans if span.name == notices.UNCAUGHT)
    assert (span.status, span.error.split(":")[0]) == ("error", "ConnectError")


def test_everything_is_put_back() -> None:
    """After shutdown() each client has its own method again."""
    owners = [
        (httpx2.Client, "send"),
        (httpx2.AsyncClient, "send"),
        (aiohttp.ClientSession, "_request"),
        (http.client.HTTPConnection, "putrequest"),
    ]
    assert all(hasattr(vars(owner)[name], "__wrapped__") for owner, name in owners)
    lightning.shutdown()
    assert not any(hasattr(vars(owner)[name], "__wrapped__") for owner, name in owners)
