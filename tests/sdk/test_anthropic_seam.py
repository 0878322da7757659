"""The Anthropic seam: every kind of call is captured, and a trained role's goes to the engine and comes back readable.

The real client talks to Anthropic on loopback, since no test may call the paid API, and to a real engine.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import _base_client

import lightning_sdk as lightning
from lightning_embedded.engine.engine import Engine
from lightning_embedded.serving.chat import Chat
from lightning_hub.decoding.replies import decode
from lightning_sdk.errors import Untranslatable
from lightning_sdk.stream.wire import unpack_floats, unpack_ints
from lightning_sdk.trace.call import Call, CallMeta
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from lightning_sdk.translation.messages import translate
from tests.engine.served_engine import KEY, Service, make_model, make_tokenizer, serve
from tests.sdk.anthropic_provider import EVENTS, MESSAGE, AnthropicProvider, stream
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

ASK: dict[str, Any] = {"model": "claude-x", "max_tokens": 8, "messages": [{"role": "user", "content": "abc"}]}
PATCHED = [
    (_base_client.BaseClient, "_build_request"),
    (_base_client.BaseClient, "_make_status_error_from_response"),
    (_base_client.SyncAPIClient, "_process_response"),
    (_base_client.AsyncAPIClient, "_process_response"),
    (_base_client.SyncAPIClient, "request"),
    (_base_client.AsyncAPIClient, "request"),
]


@pytest.fixture
def theirs() -> Iterator[AnthropicProvider]:
    with AnthropicProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def engine() -> Iterator[Service]:
    """The embedded engine with a tiny random model."""
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    engine = Engine(model, tokenizer)
    service, stop = serve(engine, Chat(tokenizer, engine.decode), model)
    yield service
    stop()
    engine.close()


@pytest.fixture
def client(theirs: AnthropicProvider) -> Iterator[anthropic.Anthropic]:
    """A client that exists before `init()`, as users' clients do."""
    with anthropic.Anthropic(api_key="secret", base_url=theirs.url, max_retries=1) as client:
        lightning.init()
        yield client


#: A random model ends one answer in three hundred before it began, where nobody says what it draws.
SEEDED = {"rollout_seed": 7}


def train(
    url: str, act: Callable[[], Any], key: str = KEY, model: str = "tiny", sampling: dict[str, Any] | None = None
) -> Any:
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint(url, model, key), sampling)
    with use_scope(Scope(rollout=rollout)):
        return lightning.agent(role="solver", trainable=True)(act)()


def only(recorder: Recorder) -> Call:
    assert len(recorder.calls) == 1, recorder.calls
    return recorder.calls[0]


def assert_learnable(call: Call) -> None:
    """Ids and log-probabilities of everything that was sampled."""
    assert (call.meta.role, call.meta.trainable, call.meta.status, call.problem) == ("solver", True, "ok", "")
    ids, logprobs = unpack_ints(call.choices[0].token_ids), unpack_floats(call.choices[0].logprobs)
    assert call.prompt_ids and 0 < len(ids) == len(logprobs) <= 8


# --- recorded only


def test_call_is_recorded_and_left_alone(
    client: anthropic.Anthropic, theirs: AnthropicProvider, recorder: Recorder
) -> None:
    """The bytes on the wire are those of an unpatched client, and the hub can read the reply."""
    client.messages.create(**ASK)
    with_us = theirs.requests.pop()
    call = only(recorder)
    assert (call.meta.framework, call.meta.path, call.meta.trainable) == ("anthropic", "/v1/messages", False)
    assert call.request == with_us.raw and "secret" in str(with_us.headers)
    lightning.shutdown()
    client.messages.create(**ASK)
    without = theirs.requests.pop()
    for request in (with_us, without):
        request.headers.pop("idempotency-key", None)
    assert with_us == without


@pytest.mark.parametrize("how", ["create", "stream", "events", "raw", "streaming", "beta", "async", "async stream"])
def test_every_way_of_calling_is_recorded(
    client: anthropic.Anthropic, theirs: AnthropicProvider, recorder: Recorder, how: str
) -> None:
    """Text, tools, model and usage are the same whichever way the reply was read."""

    async def alone() -> None:
        async with anthropic.AsyncAnthropic(api_key="secret", base_url=theirs.url) as other:
            if how == "async":
                await other.messages.create(**ASK)
                return
            async with other.messages.stream(**ASK) as stream:
                await stream.get_final_message()

    if how == "create":
        client.messages.create(**ASK)
    elif how == "stream":
        with client.messages.stream(**ASK) as stream:
            assert "".join(stream.text_stream) == "Let me see."
    elif how == "events":
        assert len(list(client.messages.create(**ASK, stream=True))) == len(EVENTS) - 1  # the SDK swallows the ping
    elif how == "raw":
        assert client.messages.with_raw_response.create(**ASK).parse().id == "msg_01"
    elif how == "streaming":
        with client.messages.with_streaming_response.create(**ASK) as response:
            assert response.json()["id"] == "msg_01"
    elif how == "beta":
        client.beta.messages.create(**ASK, betas=["x-2026"])
    else:
        asyncio.run(alone())
    call = only(recorder)
    assert (call.meta.status, call.problem, call.model, call.response_id) == ("ok", "", "claude-x", "msg_01")
    assert (call.input_tokens, call.output_tokens, call.choices[0].finish_reason) == (14, 20, "tool_calls")
    function = {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert json.loads(call.choices[0].message) == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": "toolu_01", "type": "function", "function": function}],
    }


def test_stream_closed_early(client: anthropic.Anthropic, recorder: Recorder) -> None:
    """A stream that is left is recorded once, as cancelled or, if all had come by then, as whole."""
    with client.messages.create(**ASK, stream=True) as events:
        next(iter(events))
    recorder.collect()
    assert only(recorder).response_id == "msg_01"


def test_errors_and_retries(client: anthropic.Anthropic, theirs: AnthropicProvider, recorder: Recorder) -> None:
    """A retry is part of its call; an error that stays reaches the user and the record."""
    theirs.fail = [529]
    client.messages.create(**ASK)
    theirs.fail = [400]
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ASK)
    first, second = recorder.calls
    assert (first.meta.status, len(theirs.requests)) == ("ok", 3)
    assert (second.meta.status, second.meta.http_status, second.problem) == ("error", 400, "HTTP 400: no")


def test_counting_tokens_is_not_a_call(
    client: anthropic.Anthropic, theirs: AnthropicProvider, engine: Service, recorder: Recorder
) -> None:
    """It goes where it went, for a trained role too: our engines count none."""
    counted = train(engine.url, lambda: client.messages.count_tokens(model="claude-x", messages=ASK["messages"]))
    assert counted.input_tokens == 5 and recorder.calls == [] and len(theirs.requests) == 1


def test_stream_that_was_cut_is_readable() -> None:
    """The hub reads what there is of a stream, up to wherever it was cut."""
    meta = CallMeta("0" * 16, "", "", False, 0, 1, "cancelled", "", 200, True, "/v1/messages", "anthropic")
    whole = b"".join(stream())
    for end in range(len(whole)):
        call = decode(meta, b"", whole[:end])
        said = json.loads(call.choices[0].message)["content"] if call.choices else None
        assert "cannot be read" not in call.problem and "Let me see.".startswith(said or "")


# --- trained


@pytest.mark.parametrize("how", ["create", "stream", "events", "raw", "streaming", "async", "async stream"])
def test_trained_call_goes_to_the_engine(
    client: anthropic.Anthropic, theirs: AnthropicProvider, engine: Service, recorder: Recorder, how: str
) -> None:
    """Whichever way it is made, the engine answers, the user gets Anthropic's objects and the hub gets the ids."""

    async def alone() -> str:
        async with anthropic.AsyncAnthropic(api_key="secret", base_url=theirs.url) as other:
            if how == "async":
                return (await other.messages.create(**ASK)).content[0].text
            async with other.messages.stream(**ASK) as stream:
                return (await stream.get_final_message()).content[0].text

    def act() -> str:
        if how == "create":
            return client.messages.create(**ASK).content[0].text
        if how == "stream":
            with client.messages.stream(**ASK) as stream:
                return stream.get_final_message().content[0].text
        if how == "events":
            events = client.messages.create(**ASK, stream=True)
            return "".join(event.delta.text for event in events if event.type == "content_block_delta")
        if how == "raw":
            return client.messages.with_raw_response.create(**ASK).parse().content[0].text
        if how == "streaming":
            with client.messages.with_streaming_response.create(**ASK) as response:
                return response.json()["content"][0]["text"]
        return asyncio.run(alone())

    text = train(engine.url, act, sampling=SEEDED)
    call = only(recorder)
    assert_learnable(call)
    assert text == json.loads(call.choices[0].message)["content"] and theirs.requests == []
    assert call.meta.streamed == (how in ("stream", "events", "async stream"))


def test_nothing_of_the_users_reaches_the_engine(client: anthropic.Anthropic, recorder: Recorder) -> None:
    """Neither the key nor Anthropic's headers nor what a gateway wants; the engine's own key does."""
    with Provider() as engine:
        train(
            engine.url,
            lambda: client.with_options(
                default_headers={"helicone-auth": "Bearer secret"}, default_query={"token": "secret"}
            ).beta.messages.create(**ASK, betas=["x"]),
            "engine-key",
            "policy",
        )
        sent = engine.requests[0]
    assert sent.path == "/v1/chat/completions" and sent.headers["authorization"] == "Bearer engine-key"
    assert "secret" not in str(sent) and not [name for name in sent.headers if "anthropic" in name or "key" in name]
    assert sent.body == {
        "model": "policy",
        "max_tokens": 8,
        "messages": ASK["messages"],
        "logprobs": True,
        "return_token_ids": True,
    }


def test_arguments_go_back_as_this_rollout_wrote_them(client: anthropic.Anthropic, recorder: Recorder) -> None:
    """A tool call of another rollout with the same id, which some servers give, does not come between."""
    for rollout, arguments in (("0" * 32, '{"city":"Rome"}'), ("1" * 32, '{ "city" : "Rome" }')):
        written = {"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        reply = {"choices": [{"message": {"tool_calls": [written]}, "finish_reason": "tool_calls"}]}
        translate({"messages": ASK["messages"]}, rollout).reply(json.dumps(reply).encode(), 200)
    used = {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Rome"}}
    messages = [*ASK["messages"], {"role": "assistant", "content": [used]}, *ASK["messages"]]
    with Provider() as engine:
        train(engine.url, lambda: client.messages.create(**{**ASK, "messages": messages}))
        said = engine.requests[0].body["messages"][1]
    assert said["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'


def test_errors_of_the_engine_are_anthropics(client: anthropic.Anthropic, engine: Service, recorder: Recorder) -> None:
    """The SDK raises its own error with a body of Anthropic's shape and the engine's words."""
    schema: Any = {"format": {"type": "json_schema", "schema": {"type": "odd"}}}
    with pytest.raises(anthropic.BadRequestError) as error:
        train(engine.url, lambda: client.messages.create(**ASK, output_config=schema))
    assert (error.value.body["type"], error.value.body["error"]["type"]) == ("error", "invalid_request_error")
    assert "response_format" in error.value.body["error"]["message"]
    call = only(recorder)
    assert (call.meta.status, call.meta.http_status) == ("error", 400) and "response_format" in call.problem


def test_what_shapes_the_distribution_gives_way(client: anthropic.Anthropic) -> None:
    """Anthropic's words for it too, while training."""
    with Provider() as engine:
        sampling = {"temperature": 1.0, "whole_distribution": 1.0}
        rollout = RolloutScope("0" * 32, bytes(16), Endpoint(engine.url, "policy", "engine-key"), sampling)
        with use_scope(Scope(rollout=rollout, role="solver", trainable=True)):
            client.messages.create(**ASK, extra_body={"top_k": 1, "top_p": 0.1})
        assert (engine.requests[0].body["top_k"], engine.requests[0].body["top_p"]) == (-1, 1.0)


def test_what_cannot_be_translated_is_said(
    client: anthropic.Anthropic, theirs: AnthropicProvider, engine: Service, recorder: Recorder
) -> None:
    """The call fails with what to change, and does not go elsewhere."""
    with pytest.raises(Untranslatable, match=r"tools\[0\].*web_search"):
        train(
            engine.url,
            lambda: client.messages.create(**ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        )
    assert theirs.requests == [] and only(recorder).meta.status == "error"


def test_clients_that_sign_are_refused(engine: Service, recorder: Recorder) -> None:
    """A request for Amazon's cloud is signed after we have written it: it is refused with the way out."""
    lightning.init()
    client = anthropic.AnthropicBedrock(aws_region="us-east-1", aws_access_key="a", aws_secret_key="b")
    with client, pytest.raises(Untranslatable, match=r"AnthropicBedrock.*use anthropic.Anthropic"):
        train(engine.url, lambda: client.messages.create(**ASK))


def test_credentials_of_the_http_client_stay_with_the_provider(
    theirs: AnthropicProvider, engine: Service, recorder: Recorder
) -> None:
    """An HTTP client adds its `auth` after everything else; the engine sees its own key all the same, and answers."""
    lightning.init()
    mine = httpx2.Client(auth=("user", "secret"))
    with anthropic.Anthropic(api_key="key", base_url=theirs.url, http_client=mine) as client:
        assert client.messages.create(**ASK).id == "msg_01"
        train(engine.url, lambda: client.messages.create(**ASK))
    assert [(call.meta.status, call.meta.trainable, call.problem) for call in recorder.calls] == [
        ("ok", False, ""),
        ("ok", True, ""),
    ]


@pytest.mark.parametrize("cloud", ["vertex", "foundry"])
def test_clients_of_other_clouds(theirs: AnthropicProvider, engine: Service, recorder: Recorder, cloud: str) -> None:
    """They write the request in another way; it is recorded, and of a trained role it goes to the engine."""
    lightning.init()
    if cloud == "vertex":
        client: Any = anthropic.AnthropicVertex(
            region="here", project_id="mine", access_token="secret", base_url=theirs.url
        )
    else:
        client = anthropic.AnthropicFoundry(api_key="secret", base_url=theirs.url)
    with client:
        assert client.messages.create(**ASK).id == "msg_01"
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_message().id == "msg_01"
        assert [call.response_id for call in recorder.calls] == ["msg_01"] * 2 and len(theirs.requests) == 2
        recorder.events.clear()
        assert train(engine.url, lambda: client.messages.create(**ASK), sampling=SEEDED).content
    assert_learnable(only(recorder))


def test_trained_stream_closed_early(client: anthropic.Anthropic, recorder: Recorder) -> None:
    """What was read of it is kept, as cancelled."""
    ask = {**ASK, "messages": [{"role": "user", "content": "x" * 4_000}]}
    with Provider() as engine:

        def act() -> None:
            with client.messages.stream(**ask) as stream:
                for event in stream:
                    if event.type == "text":
                        break

        train(engine.url, act, "k", "policy")
    call = only(recorder)
    assert (call.meta.status, call.meta.error) == ("cancelled", "closed before its end")
    assert 0 < len(call.choices[0].token_ids) // 4 < 4_000


def test_async_calls_keep_their_roles(theirs: AnthropicProvider, recorder: Recorder) -> None:
    """Trained and other roles in flight together each get their own reply."""
    lightning.init()

    async def main(url: str) -> None:
        async with anthropic.AsyncAnthropic(api_key="secret", base_url=theirs.url) as client:

            async def one(index: int) -> None:
                ask = {**ASK, "messages": [{"role": "user", "content": f"m{index}"}]}

                @lightning.agent(role=f"r{index}", trainable=index % 2 == 0)
                async def act() -> str:
                    async with client.messages.stream(**ask) as stream:
                        return (await stream.get_final_message()).content[0].text

                assert await act() == (MESSAGE["content"][0]["text"] if index % 2 else f"m{index}"[::-1])

            with use_scope(Scope(rollout=RolloutScope("0" * 32, bytes(16), Endpoint(url, "policy", "k")))):
                await asyncio.gather(*map(one, range(16)))

    with Provider() as engine:
        asyncio.run(main(engine.url))
        assert (len(engine.requests), len(theirs.requests)) == (8, 8)
    assert {call.meta.role: call.meta.trainable for call in recorder.calls} == {f"r{i}": i % 2 == 0 for i in range(16)}


def test_shutdown_restores_every_attribute(client: anthropic.Anthropic) -> None:
    """What `init()` replaced is the very same object again."""
    during = [vars(owner)[name] for owner, name in PATCHED]
    lightning.shutdown()
    after = [vars(owner)[name] for owner, name in PATCHED]
    assert not any(now is was for now, was in zip(after, during, strict=True))
    assert not any(hasattr(now, "__wrapped__") for now in after)
