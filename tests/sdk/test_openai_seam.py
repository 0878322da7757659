"""The OpenAI seam: every kind of call is captured with its tokens, redirected only when trainable, and left as it was.

The real OpenAI client talks to a provider on loopback, since no test may call the paid API.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import _base_client

import lightning_openai
import lightning_sdk as lightning
from lightning_sdk.stream.wire import pack_floats, pack_ints
from lightning_sdk.trace.call import Call
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

PATCHED = [
    (_base_client.BaseClient, "_build_request"),
    (_base_client.SyncAPIClient, "_process_response"),
    (_base_client.AsyncAPIClient, "_process_response"),
    (_base_client.SyncAPIClient, "request"),
    (_base_client.AsyncAPIClient, "request"),
]
ASK: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "abc"}]}


@pytest.fixture
def client(provider: Provider) -> Iterator[openai.OpenAI]:
    """A client that exists before `init()`, as users' clients do."""
    with openai.OpenAI(api_key="secret", base_url=provider.url, max_retries=2) as client:
        lightning.init()
        yield client


@pytest.fixture
def engine() -> Any:
    with Provider() as engine:
        yield engine


def train(engine: Provider, act: Callable[[], Any], **sampling: Any) -> Any:
    """`act` inside a rollout whose trainable roles go to `engine`, spoken by a trainable role."""
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint(engine.url, "policy", "engine-key"), sampling)
    with use_scope(Scope(rollout=rollout)):
        return lightning.agent(role="solver", trainable=True)(act)()


def only(recorder: Recorder) -> Call:
    assert len(recorder.calls) == 1, recorder.calls
    return recorder.calls[0]


def test_call_of_no_role_is_recorded_and_left_alone(
    client: openai.OpenAI, provider: Provider, recorder: Recorder
) -> None:
    """The bytes on the wire are those of an unpatched client; the span tells who, when and what."""
    client.chat.completions.create(**ASK, temperature=0.3)
    with_us = provider.requests.pop()
    call = only(recorder)
    assert (call.meta.role, call.meta.trainable, call.meta.status, call.meta.http_status) == ("", False, "ok", 200)
    assert call.meta.framework == "openai" and call.meta.path.endswith("/chat/completions")
    assert call.request == with_us.raw and json.loads(call.choices[0].message)["content"] == "cba"
    assert (call.input_tokens, call.output_tokens, call.choices[0].finish_reason) == (3, 5, "stop")
    lightning.shutdown()
    client.chat.completions.create(**ASK, temperature=0.3)
    assert provider.requests.pop() == with_us


def test_trainable_call_goes_to_the_engine(client: openai.OpenAI, provider: Provider, recorder: Recorder) -> None:
    """The engine gets model, sampling and token fields; the user's own key, and provider, see nothing of it."""
    with Provider() as engine:
        reply = train(engine, lambda: client.chat.completions.create(**ASK, temperature=0.3), temperature=1.0)
        sent = engine.requests[0]
    assert provider.requests == [] and reply.choices[0].message.content == "cba"
    assert sent.path == "/v1/chat/completions" and sent.headers["authorization"] == "Bearer engine-key"
    assert "secret" not in str(sent.headers)
    assert sent.body == {**ASK, "model": "policy", "temperature": 1.0, "logprobs": True, "return_token_ids": True}
    call = only(recorder)
    assert (call.meta.role, call.meta.trainable, call.problem) == ("solver", True, "")
    assert call.prompt_ids == pack_ints([1, 2, 3])
    assert call.choices[0].token_ids == pack_ints(map(ord, "cba"))
    assert call.choices[0].logprobs == pack_floats([-0.5] * 3)


def test_role_decides_where_a_call_goes(client: openai.OpenAI, provider: Provider, engine: Provider) -> None:
    """Inside one rollout the trainable role goes to the engine and the other stays where it was."""

    @lightning.agent(role="helper")
    def helper() -> None:
        client.chat.completions.create(**ASK)

    def team() -> None:
        client.chat.completions.create(**ASK)
        helper()

    train(engine, team)
    assert (len(engine.requests), len(provider.requests)) == (1, 1)
    assert provider.requests[0].headers["authorization"] == "Bearer secret"


def test_several_choices(client: openai.OpenAI, engine: Provider, recorder: Recorder) -> None:
    """n=3 is one call with three completions."""
    train(engine, lambda: client.chat.completions.create(**ASK, n=3))
    assert [choice.token_ids for choice in only(recorder).choices] == [pack_ints(map(ord, "cba"))] * 3


@pytest.mark.parametrize("raw", [False, True])
def test_stream(client: openai.OpenAI, engine: Provider, recorder: Recorder, raw: bool) -> None:
    """A stream that is read to its end is whole, also through a raw response."""

    def act() -> str:
        if raw:
            stream = client.chat.completions.with_raw_response.create(**ASK, stream=True).parse()
        else:
            stream = client.chat.completions.create(**ASK, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert train(engine, act) == "cba"
    call = only(recorder)
    assert (call.meta.status, call.meta.streamed, call.problem) == ("ok", True, "")
    assert call.prompt_ids == pack_ints([1, 2, 3]) and call.choices[0].token_ids == pack_ints(map(ord, "cba"))
    assert call.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("ending", ["close", "break", "abandon"])
def test_stream_left_early(client: openai.OpenAI, engine: Provider, recorder: Recorder, ending: str) -> None:
    """A stream that is closed, broken off or forgotten is recorded once, as cancelled, with what was read."""
    ask = {**ASK, "messages": [{"role": "user", "content": "x" * 4_000}]}

    def act() -> None:
        stream = client.chat.completions.create(**ask, stream=True)
        if ending == "abandon":
            return
        for chunk in stream:
            assert chunk.choices[0].delta.content == "x"
            if ending == "close":
                stream.close()
            break

    train(engine, act)
    recorder.collect()
    call = only(recorder)
    assert (call.meta.status, call.meta.error) == ("cancelled", "closed before its end")
    read = len(call.choices[0].token_ids) // 4 if call.choices else 0
    assert (read == 0) if ending == "abandon" else (0 < read < 4_000)


def test_streaming_response_read_whole(client: openai.OpenAI, recorder: Recorder) -> None:
    """`with_streaming_response` hands the body over piece by piece; it is captured all the same."""
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "cba"
    call = only(recorder)
    assert (call.meta.status, call.meta.streamed) == ("ok", False)
    assert json.loads(call.choices[0].message)["content"] == "cba"


def test_async_calls_interleave(provider: Provider, engine: Provider, recorder: Recorder) -> None:
    """64 async calls in flight, streamed or not, each keep their own role and text."""
    client = openai.AsyncOpenAI(api_key="secret", base_url=provider.url)
    lightning.init()

    async def one(index: int) -> None:
        ask = {**ASK, "messages": [{"role": "user", "content": f"m{index}"}]}

        @lightning.agent(role=f"r{index}", trainable=index % 2 == 0)
        async def act() -> str:
            if index % 3:
                return (await client.chat.completions.create(**ask)).choices[0].message.content or ""
            stream = await client.chat.completions.create(**ask, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert await act() == f"m{index}"[::-1]

    async def main() -> None:
        rollout = RolloutScope("0" * 32, bytes(16), Endpoint(engine.url, "policy", "k"))
        with use_scope(Scope(rollout=rollout)):
            await asyncio.gather(*map(one, range(64)))
        await client.close()

    asyncio.run(main())
    assert (len(engine.requests), len(provider.requests)) == (32, 32)
    seen = {call.meta.role: json.loads(call.choices[0].message)["content"] for call in recorder.calls}
    assert seen == {f"r{index}": f"m{index}"[::-1] for index in range(64)}
    assert all(call.meta.trainable == (int(call.meta.role[1:]) % 2 == 0) for call in recorder.calls)


def test_async_stream_closed_early(provider: Provider, recorder: Recorder) -> None:
    """An async stream that is closed before its end is recorded as cancelled."""
    lightning.init()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="x", base_url=provider.url) as client:
            ask = {**ASK, "messages": [{"role": "user", "content": "x" * 4_000}]}
            stream = await client.chat.completions.create(**ask, stream=True)
            await anext(aiter(stream))
            await stream.close()

    asyncio.run(main())
    assert only(recorder).meta.status == "cancelled"


def test_retries_are_one_call(client: openai.OpenAI, provider: Provider, recorder: Recorder) -> None:
    """Two failed attempts and a good one are one call that went well."""
    provider.fail = [500, 500]
    client.chat.completions.create(**ASK)
    assert len(provider.requests) == 3
    assert (only(recorder).meta.status, only(recorder).problem) == ("ok", "")


@pytest.mark.parametrize("status", [400, 500])
def test_errors_pass_through_and_are_recorded(
    client: openai.OpenAI, provider: Provider, recorder: Recorder, status: int
) -> None:
    """The user gets the SDK's own error; the call says what it was."""
    provider.fail = [status] * 3
    with pytest.raises(openai.BadRequestError if status == 400 else openai.InternalServerError):
        client.chat.completions.create(**ASK)
    call = only(recorder)
    assert (call.meta.status, call.meta.http_status) == ("error", status) and str(status) in call.meta.error


def test_engine_that_is_away_is_our_fault(client: openai.OpenAI, recorder: Recorder) -> None:
    """No answer from our engine marks the rollout as broken by us; a bad request does not."""
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint("http://127.0.0.1:9/v1", "policy", "k"))
    solver = lightning.agent(role="solver", trainable=True)(
        lambda: client.with_options(max_retries=0).chat.completions.create(**ASK)
    )
    with use_scope(Scope(rollout=rollout)), pytest.raises(openai.APIConnectionError):
        solver()
    assert "APIConnectionError" in rollout.broken and only(recorder).meta.status == "error"


def test_azure_secrets_do_not_reach_the_engine(engine: Provider, recorder: Recorder) -> None:
    """An Azure client's key and its api-version stay with the user."""
    azure = openai.AzureOpenAI(api_key="secret", api_version="2024-10-21", azure_endpoint="http://127.0.0.1:9")
    lightning.init()
    with azure as client:
        train(engine, lambda: client.chat.completions.create(**ASK))
    sent = engine.requests[0]
    assert sent.path == "/v1/chat/completions" and "secret" not in str(sent.headers)
    assert only(recorder).problem == ""


def test_agent_without_max_tokens_gets_the_default(client: openai.OpenAI, engine: Provider) -> None:
    """The default bound is for calls that name none."""
    train(engine, lambda: client.chat.completions.create(**ASK), max_tokens_default=7)
    train(engine, lambda: client.chat.completions.create(**ASK, max_tokens=3), max_tokens_default=7)
    assert [request.body["max_tokens"] for request in engine.requests] == [7, 3]


def test_changed_sampling_is_said_once(
    client: openai.OpenAI, engine: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """A temperature that the agent asked for is not replaced silently."""
    for _ in range(2):
        train(engine, lambda: client.chat.completions.create(**ASK, temperature=0.3), temperature=1.0)
    assert caplog.text.count("asks for temperature=0.3; while it is trained") == 1
    assert caplog.text.count("have temperature=1.0 instead") == 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}, "none"])
def test_forms_and_forced_calls_reach_the_engine(client: openai.OpenAI, engine: Provider, choice: Any) -> None:
    """The learner finds the masks again with which they are kept, so nothing is left to the model instead."""
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    form: Any = {"type": "json_object"}
    ask = {**ASK, "tools": tools, "tool_choice": choice, "response_format": form}
    train(engine, lambda: client.chat.completions.create(**ask), whole_distribution=1.0)
    assert [(sent.body["tool_choice"], sent.body["response_format"]) for sent in engine.requests] == [(choice, form)]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_a_forced_tool_call_is_left_to_the_model(
    client: openai.OpenAI, engine: Provider, caplog: pytest.LogCaptureFixture, choice: Any
) -> None:
    """Where the learner knows no masks, what a forced call is drawn from is not the policy: said once, and 'auto'."""
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    for asked in (choice, choice, "none"):
        ask = {**ASK, "tools": tools, "tool_choice": asked}
        train(engine, lambda ask=ask: client.chat.completions.create(**ask), free_choice=1.0)
    assert [request.body["tool_choice"] for request in engine.requests] == ["auto", "auto", "none"]
    assert caplog.text.count("asks for tool_choice=") == 1


def test_other_requests_pass_untouched(client: openai.OpenAI, provider: Provider, recorder: Recorder) -> None:
    """Requests that are not calls to a model are neither recorded nor redirected, even for a trainable role."""
    with Provider() as engine, pytest.raises(openai.APIStatusError):
        train(engine, client.models.list)
    assert recorder.calls == []


def test_shutdown_restores_every_attribute() -> None:
    """After `shutdown()` the SDK's classes hold the very functions that they held before."""
    before = [vars(owner)[name] for owner, name in PATCHED]
    lightning.init()
    assert all(vars(owner)[name] is not old for (owner, name), old in zip(PATCHED, before, strict=True))
    lightning.shutdown()
    assert [vars(owner)[name] for owner, name in PATCHED] == before
    lightning.init()
    lightning.init()
    lightning.shutdown()
    assert [vars(owner)[name] for owner, name in PATCHED] == before


def test_another_tool_on_a_subclass_hides_nothing(provider: Provider, recorder: Recorder) -> None:
    """A tool that put its own `request` on `openai.OpenAI` before us, as OpenInference does, still lets us see once."""
    original = openai.OpenAI.request

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    openai.OpenAI.request = request  # type: ignore[method-assign]
    try:
        lightning.init()
        with openai.OpenAI(api_key="x", base_url=provider.url) as client:
            client.chat.completions.create(**ASK)
        assert only(recorder).meta.status == "ok"
        lightning.shutdown()
        assert vars(openai.OpenAI)["request"] is request
    finally:
        del openai.OpenAI.request


def test_broken_integration_does_not_break_the_import(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An integration that raises is off, with one warning, and the rest goes on."""

    def fail(_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(lightning_openai, "instrument", fail)
    lightning.init()
    assert "no luck" in caplog.text
    assert "off: RuntimeError" in str(lightning.status())
