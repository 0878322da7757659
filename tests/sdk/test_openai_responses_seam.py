"""The Responses API through the OpenAI seam: trained as chat completions, seen by the caller as what was asked for.

The real OpenAI client talks to providers on loopback, since no test may call the paid API, and to a real engine.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

import lightning_sdk as lightning
from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from lightning_sdk.errors import Untranslatable
from lightning_sdk.stream.wire import pack_ints
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.engine.served_engine import KEY, make_model, make_tokenizer, serve
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.responses_provider import ResponsesProvider
from tests.sdk.trained import ASK, CHAT, assert_trained, only, train


@pytest.fixture
def client(provider: Provider) -> Iterator[openai.OpenAI]:
    """A client that exists before `init()`, as users' clients do."""
    with openai.OpenAI(api_key="secret", base_url=provider.url, max_retries=2) as client:
        lightning.init()
        yield client


# --- every way to call, and to read


class Answer(BaseModel):
    number: int


def create(client: openai.OpenAI) -> str:
    return client.responses.create(**ASK).output_text


def raw(client: openai.OpenAI) -> str:
    response = client.responses.with_raw_response.create(**ASK)
    assert int(response.headers["content-length"]) == len(response.content)
    assert json.loads(response.text)["object"] == "response"
    return response.parse().output_text


def raw_streaming(client: openai.OpenAI) -> str:
    with client.responses.with_streaming_response.create(**ASK) as response:
        return response.parse().output_text


def raw_bytes(client: openai.OpenAI) -> str:
    with client.responses.with_streaming_response.create(**ASK) as response:
        body = b"".join(response.http_response.iter_raw())
    return json.loads(body)["output"][0]["content"][0]["text"]


def events(client: openai.OpenAI) -> str:
    read = list(client.responses.create(**ASK, stream=True))
    assert (read[0].type, read[-1].type) == ("response.created", "response.completed")
    return "".join(each.delta for each in read if each.type == "response.output_text.delta")


def raw_events(client: openai.OpenAI) -> str:
    read = client.responses.with_raw_response.create(**ASK, stream=True).parse()
    return "".join(each.delta for each in read if each.type == "response.output_text.delta")


def lines(client: openai.OpenAI) -> str:
    with client.responses.with_streaming_response.create(**ASK, stream=True) as response:
        data = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    return data[-1]["response"]["output"][0]["content"][0]["text"]


def helper(client: openai.OpenAI) -> str:
    with client.responses.stream(**ASK) as stream:
        deltas = [each.delta for each in stream if each.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas)
    return "".join(deltas)


def until_completed(client: openai.OpenAI) -> str:
    """Some frameworks stop at the last event and close the stream, whose bytes are not at their end."""
    with client.responses.create(**ASK, stream=True) as stream:
        return next(each for each in stream if each.type == "response.completed").response.output_text


STREAMED = {events, raw_events, lines, helper, until_completed}


@pytest.mark.parametrize(
    "way", [create, raw, raw_streaming, raw_bytes, events, raw_events, lines, helper, until_completed]
)
def test_every_way_is_trained(
    client: openai.OpenAI, provider: Provider, engine: Provider, recorder: Recorder, way: Callable[[Any], str]
) -> None:
    """The caller sees a response; the record holds what the engine got and sampled; the provider sees nothing."""
    assert train(engine, lambda: way(client)) == "cba"
    assert provider.requests == [] and len(engine.requests) == 1
    body = engine.requests[0].body
    stream = {"stream": True, "stream_options": {"include_usage": True}} if way in STREAMED else {}
    assert body == {**CHAT, **stream, "logprobs": True, "return_token_ids": True}
    assert "secret" not in str(engine.requests[0].headers)
    assert_trained(only(recorder), engine, streamed=way in STREAMED)


def test_every_way_async(provider: Provider, engine: Provider, recorder: Recorder) -> None:
    """The same with the async client, several at once."""
    lightning.init()

    async def raw(client: openai.AsyncOpenAI) -> str:
        return (await client.responses.with_raw_response.create(**ASK)).parse().output_text

    async def raw_streaming(client: openai.AsyncOpenAI) -> str:
        async with client.responses.with_streaming_response.create(**ASK) as response:
            return (await response.parse()).output_text

    async def raw_bytes(client: openai.AsyncOpenAI) -> str:
        async with client.responses.with_streaming_response.create(**ASK) as response:
            body = b"".join([piece async for piece in response.http_response.aiter_raw()])
        return json.loads(body)["output"][0]["content"][0]["text"]

    async def events(client: openai.AsyncOpenAI) -> str:
        stream = await client.responses.create(**ASK, stream=True)
        return "".join([each.delta async for each in stream if each.type == "response.output_text.delta"])

    async def helper(client: openai.AsyncOpenAI) -> str:
        async with client.responses.stream(**ASK) as stream:
            return (await stream.get_final_response()).output_text

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="secret", base_url=provider.url) as client:
            ways = (raw, raw_streaming, raw_bytes, events, helper)
            assert await asyncio.gather(*(way(client) for way in ways)) == ["cba"] * 5

    train(engine, lambda: asyncio.run(main()))
    assert len(engine.requests) == len(recorder.calls) == 5 and provider.requests == []
    for call in recorder.calls:
        assert call.problem == "" and call.choices[0].token_ids == pack_ints(map(ord, "cba"))


def test_parse(client: openai.OpenAI, engine: Provider, recorder: Recorder) -> None:
    """A pydantic model is asked for as a JSON schema, and read out of the text."""
    response = train(engine, lambda: client.responses.parse(model="x", input='}1 :"rebmun"{', text_format=Answer))
    assert response.output_parsed == Answer(number=1)
    assert engine.requests[0].body["response_format"]["json_schema"]["name"] == "Answer"
    assert only(recorder).problem == ""


def test_objects_of_the_sdk_can_be_sent_back(client: openai.OpenAI, engine: Provider) -> None:
    """Items of an earlier response, as objects, next to plain dicts; or its id."""

    def act() -> None:
        first = client.responses.create(**ASK)
        client.responses.create(model="x", input=[*first.output, {"role": "user", "content": "more"}])
        client.responses.create(model="x", input="more", previous_response_id=first.id)

    train(engine, act)
    answer = {"role": "assistant", "content": "cba"}
    more = {"role": "user", "content": "more"}
    assert engine.requests[1].body["messages"] == [answer, more]
    assert engine.requests[2].body["messages"] == [*CHAT["messages"], answer, more]


def test_a_real_engine(recorder: Recorder) -> None:
    """Tools, whole and streamed, a second turn by id: the ids recorded are those that the engine sampled."""
    tokenizer = make_tokenizer()
    engine = Engine(model := make_model(len(tokenizer)), tokenizer, max_slots=4)
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    tool: dict[str, Any] = {"type": "function", "name": "add", "parameters": {"properties": {"a": {}}}, "strict": False}
    ask: dict[str, Any] = {"model": "x", "tools": [tool], "max_output_tokens": 6}
    lightning.init()

    def act() -> None:
        with openai.OpenAI(api_key="secret", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
            first = client.responses.create(input="What is twelve plus thirty?", **ask)
            assert first.status in ("completed", "incomplete") and first.model == "tiny"
            with client.responses.stream(input="Sure?", previous_response_id=first.id, **ask) as stream:
                last = list(stream)[-1].response
            assert last.usage and first.usage and last.usage.input_tokens > first.usage.input_tokens
            assert last.output_text == json.loads(recorder.calls[1].choices[0].message)["content"]

    try:
        rollout = RolloutScope("0" * 32, bytes(16), Endpoint(service.url, "tiny", KEY))
        with use_scope(Scope(rollout=rollout)):
            lightning.agent(role="solver", trainable=True)(act)()
    finally:
        stop()
        engine.close()
    first, second = recorder.calls
    assert first.problem == second.problem == "" and second.meta.streamed
    assert first.choices[0].token_ids and len(first.choices[0].token_ids) == 4 * first.output_tokens
    # The second prompt continues the very tokens of the first turn.
    assert second.prompt_ids.startswith(first.prompt_ids + first.choices[0].token_ids)


# --- endings and errors


@pytest.mark.parametrize("ending", ["close", "break", "abandon"])
def test_a_stream_left_early(client: openai.OpenAI, engine: Provider, recorder: Recorder, ending: str) -> None:
    """Closed, broken off or forgotten: recorded once, as cancelled, with the tokens that were read."""

    def act() -> None:
        stream = client.responses.create(model="x", input="x" * 4_000, stream=True)
        if ending == "abandon":
            return
        assert next(stream).type == "response.created"
        next(each for each in stream if each.type == "response.output_text.delta")
        if ending == "close":
            stream.close()

    train(engine, act)
    recorder.collect()
    call = only(recorder)
    assert (call.meta.status, call.meta.error) == ("cancelled", "closed before its end")
    read = len(call.choices[0].token_ids) // 4 if call.choices else 0
    assert (read == 0) if ending == "abandon" else (0 < read < 4_000)


@pytest.mark.parametrize("status", [400, 500])
def test_errors_of_the_engine(client: openai.OpenAI, engine: Provider, recorder: Recorder, status: int) -> None:
    """The user gets the SDK's own error, after its usual retries; the call says what it was."""
    engine.fail = [status] * 3
    with pytest.raises(openai.BadRequestError if status == 400 else openai.InternalServerError) as error:
        train(engine, lambda: client.responses.create(**ASK))
    assert (error.value.code, error.value.status_code) == ("y", status) and error.value.message.endswith("no")
    assert len(engine.requests) == (1 if status == 400 else 3)
    assert (only(recorder).meta.status, only(recorder).meta.http_status) == ("error", status)


def test_a_retry_is_translated_again(client: openai.OpenAI, engine: Provider, recorder: Recorder) -> None:
    """One call, the last attempt of which is recorded."""
    engine.fail = [500]
    assert train(engine, lambda: client.responses.create(**ASK)).output_text == "cba"
    assert_trained(only(recorder), engine, streamed=False)


def test_what_cannot_be_translated_is_said_and_recorded(
    client: openai.OpenAI, provider: Provider, engine: Provider, recorder: Recorder
) -> None:
    """Nothing is sent anywhere; the record has the request."""
    with pytest.raises(Untranslatable, match="web_search"):
        train(engine, lambda: client.responses.create(**ASK, tools=[{"type": "web_search"}]))
    assert provider.requests == engine.requests == []
    call = only(recorder)
    assert call.meta.status == "error" and "web_search" in call.problem and b"web_search" in call.request


def test_a_translated_response_is_kept_by_no_provider(
    client: openai.OpenAI, provider: Provider, engine: Provider
) -> None:
    """Asking for it later, or continuing it by a role that is not trained, says so instead of asking the provider."""
    made = train(engine, lambda: client.responses.create(**ASK))
    for ask in (
        lambda: client.responses.retrieve(made.id),
        lambda: client.responses.retrieve(made.id, stream=True),
        lambda: client.responses.cancel(made.id),
        lambda: client.responses.delete(made.id),
        lambda: client.responses.input_items.list(made.id).data,
    ):
        with pytest.raises(Untranslatable, match=f"{made.id} was made by the engine.*responses.create"):
            ask()
    with pytest.raises(Untranslatable, match="send the whole conversation"):
        client.responses.create(**ASK, previous_response_id=made.id)
    assert provider.requests == []
    with pytest.raises(openai.APIStatusError):  # any other id is the provider's to answer for
        client.responses.retrieve("resp_1")


# --- what is not trained


def test_a_call_of_no_role_is_recorded_and_left_alone(recorder: Recorder) -> None:
    """The same bytes as without us, whole and streamed; the hub reads text, calls, usage and the end."""
    with ResponsesProvider() as provider, openai.OpenAI(api_key="x", base_url=provider.url) as client:
        client.responses.create(**ASK)
        list(client.responses.create(**ASK, stream=True))
        without, provider.seen = provider.seen, []
        lightning.init()
        assert client.responses.create(**ASK).id == "resp_1"
        assert len(list(client.responses.create(**ASK, stream=True))) == 4
        assert provider.seen == without
    for call in recorder.calls:
        assert (call.meta.trainable, call.meta.status, call.problem) == (False, "ok", "")
        message = json.loads(call.choices[0].message)
        assert (message["content"], message["tool_calls"][0]["function"]["name"]) == ("cba", "add")
        assert (call.response_id, call.model, call.input_tokens, call.output_tokens) == ("resp_1", "gpt-x", 3, 5)
        assert call.choices[0].finish_reason == "tool_calls"
    assert [call.meta.streamed for call in recorder.calls] == [False, True]


def test_a_providers_stream_left_early_shows_what_was_read(recorder: Recorder) -> None:
    """Text of the deltas, as far as they went; one that was read to its last event is whole."""
    with ResponsesProvider() as provider, openai.OpenAI(api_key="x", base_url=provider.url) as client:
        lightning.init()
        stream = client.responses.with_raw_response.create(**ASK, stream=True).http_response
        read = b""
        for piece in stream.iter_bytes(chunk_size=1):
            read += piece
            if b'"delta":"cb"' in read and read.endswith(b"\n\n"):
                break
        stream.close()
        with client.responses.create(**ASK, stream=True) as events:
            next(each for each in events if each.type == "response.completed")
        pieces = client.responses.with_raw_response.create(**ASK, stream=True).http_response
        list(pieces.iter_bytes(chunk_size=64))
    early, whole, in_pieces = recorder.calls
    assert early.meta.status == "cancelled" and whole.meta.status == "ok"
    assert in_pieces.choices == whole.choices and in_pieces.output_tokens == 5
    assert json.loads(early.choices[0].message)["content"] == "cb"


def test_other_endpoints_are_left_alone(client: openai.OpenAI, provider: Provider, engine: Provider) -> None:
    """Embeddings, images and counting of a trained role stay where they were."""
    provider.fail = [404] * 9
    for ask in (
        lambda: client.embeddings.create(model="x", input="a"),
        lambda: client.images.generate(model="x", prompt="a"),
        lambda: client.moderations.create(input="a"),
        lambda: client.responses.input_tokens.count(model="x", input="a"),
    ):
        with pytest.raises(openai.NotFoundError):
            train(engine, ask)
    paths = [request.path.removeprefix("/v1/") for request in provider.requests]
    assert paths == ["embeddings", "images/generations", "moderations", "responses/input_tokens"]
    assert engine.requests == []
