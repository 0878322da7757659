"""The seam of huggingface_hub: its clients at a provider and at an engine that stand in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.errors import Untranslatable
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.trained import CHAT, assert_trained, only, train

MESSAGES = CHAT["messages"]


@pytest.fixture
def theirs(provider: Provider) -> Iterator[Provider]:
    """The user's own provider; `init()` comes after the client was imported."""
    lightning.init()
    yield provider


def complete(url: str, **options: Any) -> str:
    with InferenceClient(base_url=url, api_key="secret") as client:
        return client.chat_completion(MESSAGES, **options).choices[0].message.content


def stream(url: str) -> str:
    with InferenceClient(base_url=url, api_key="secret") as client:
        chunks = client.chat.completions.create(MESSAGES, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def complete_async(url: str) -> str:
    async def ask() -> str:
        async with AsyncInferenceClient(base_url=url, api_key="secret") as client:
            return (await client.chat_completion(MESSAGES)).choices[0].message.content

    return asyncio.run(ask())


def stream_async(url: str) -> str:
    async def ask() -> str:
        async with AsyncInferenceClient(base_url=url, api_key="secret") as client:
            chunks = await client.chat_completion(MESSAGES, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])

    return asyncio.run(ask())


WAYS = pytest.mark.parametrize("ask", [complete, stream, complete_async, stream_async])


@WAYS
def test_a_call_is_recorded_and_left_alone(theirs: Provider, recorder: Recorder, ask: Callable[[str], str]) -> None:
    """The bytes on the wire are those of an unpatched client, and the hub can read the reply."""
    assert ask(theirs.url) == "cba"
    with_us, call = theirs.requests.pop(), only(recorder)
    assert (call.meta.framework, call.meta.path) == ("huggingface_hub", "/v1/chat/completions")
    assert (call.meta.status, call.meta.trainable, call.request) == ("ok", False, with_us.raw)
    assert call.meta.streamed == ("stream" in ask.__name__)
    assert json.loads(call.choices[0].message)["content"] == "cba" and "secret" in str(with_us.headers)
    lightning.shutdown()
    ask(theirs.url)
    without = theirs.requests.pop()
    for request in (with_us, without):
        request.headers.pop("x-amzn-trace-id", None)
    assert with_us == without


@WAYS
def test_a_trained_call_goes_to_the_engine(theirs: Provider, recorder: Recorder, ask: Callable[[str], str]) -> None:
    """Whichever way it is made, the engine answers, its ids are recorded, and nothing of the user's gets there."""
    with Provider() as engine:
        assert train(engine, lambda: ask(theirs.url)) == "cba"
        assert_trained(only(recorder), engine, streamed="stream" in ask.__name__)
        sent = engine.requests[0]
    assert theirs.requests == [] and "secret" not in str(sent)
    assert sent.headers["authorization"] == "Bearer engine-key"
    assert (sent.body["model"], sent.body["logprobs"], sent.body["return_token_ids"]) == ("policy", True, True)


def test_the_callers_tools_and_ids(theirs: Provider, recorder: Recorder) -> None:
    """What the caller asks for gets to the engine as it is, and the caller does not see what training asks for."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    with Provider() as engine, InferenceClient(base_url=theirs.url, api_key="secret") as client:
        reply = train(engine, lambda: client.chat_completion(MESSAGES, tools=tools, tool_choice="auto", max_tokens=9))
        sent = engine.requests[0].body
    assert (sent["tools"], sent["tool_choice"], sent["max_tokens"]) == (tools, "auto", 9)
    assert reply.choices[0].logprobs is None and "token_ids" not in str(reply)


@pytest.mark.parametrize("ask", [complete, stream, complete_async, stream_async])
def test_errors_are_recorded(theirs: Provider, recorder: Recorder, ask: Callable[[str], str]) -> None:
    """The caller sees the library's own error, and the call has its status."""
    theirs.fail = [500]
    with pytest.raises(HfHubHTTPError):
        ask(theirs.url)
    call = only(recorder)
    assert (call.meta.status, call.meta.http_status) == ("error", 500) and "HfHubHTTPError" in call.meta.error


def test_a_server_that_is_not_there(theirs: Provider, recorder: Recorder) -> None:
    """The call is recorded as one that failed."""
    with pytest.raises(Exception, match="refused"):
        complete("http://127.0.0.1:9/v1")
    assert only(recorder).meta.status == "error"


def test_text_generation_of_a_trained_role_is_refused(theirs: Provider, recorder: Recorder) -> None:
    """Hugging Face's own protocol gives no token ids; other roles use it as before."""
    with InferenceClient(base_url=theirs.url, api_key="secret") as client:
        with pytest.raises(Untranslatable, match=r"call chat_completion\(\) in the role"):
            train("http://127.0.0.1:9/v1", lambda: client.text_generation("abc"))
        with pytest.raises(Exception):  # noqa: B017 - this provider has no such endpoint
            client.text_generation("abc")
    assert [request.path for request in theirs.requests] == ["/v1"] and recorder.calls == []


def test_a_stream_that_is_closed_early(theirs: Provider, recorder: Recorder) -> None:
    """What was read of it is recorded as a cancelled call."""
    with InferenceClient(base_url=theirs.url, api_key="secret") as client:
        next(iter(client.chat_completion(MESSAGES, stream=True)))
    assert only(recorder).meta.status == "cancelled"


def test_shutdown_restores_every_attribute() -> None:
    """The library has its own functions again, and before that both integrations were active."""
    from huggingface_hub.inference import _client  # noqa: PLC0415 - private, and of this test alone
    from huggingface_hub.inference._generated import _async_client  # noqa: PLC0415

    owners = (_client, _client.InferenceClient, _async_client.AsyncInferenceClient)
    before = [dict(vars(owner)) for owner in owners]
    lightning.init()
    states = session.status()["integrations"]
    assert {state for name, state in states.items() if "huggingface" in name} == {"active"}
    assert [dict(vars(owner)) for owner in owners] != before
    lightning.shutdown()
    assert [dict(vars(owner)) for owner in owners] == before
