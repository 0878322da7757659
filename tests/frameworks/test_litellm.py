"""LiteLLM: every function, provider and way of import; trained calls by the OpenAI SDK, others where they leave."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.frameworks.calculator import CALCULATOR
from tests.frameworks.same import assert_all_trained, assert_same_bytes

pytest.importorskip("litellm")
import litellm
from litellm import acompletion, completion  # by name, before init()

import lightning_sdk as lightning

QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
ASK: dict[str, Any] = {"messages": QUESTION, "max_tokens": 24, "num_retries": 0}


def at(wire: Any, model: str) -> dict[str, Any]:
    """How a user of this provider calls it."""
    base = wire.root if model.startswith("anthropic/") else wire.url
    return {**ASK, "model": model, "api_base": base, "api_key": "mine"}


def plain(wire: Any, model: str) -> str:
    return str(completion(**at(wire, model), tools=[CALCULATOR]).choices[0].message.tool_calls)


def stream(wire: Any, model: str) -> str:
    chunks = list(litellm.completion(**at(wire, model), tools=[CALCULATOR], stream=True))
    return str(litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls)


def ask_async(wire: Any, model: str) -> str:
    async def ask() -> str:
        return str((await acompletion(**at(wire, model), tools=[CALCULATOR])).choices[0].message.tool_calls)

    return asyncio.run(ask())


def awaited_stream(wire: Any, model: str) -> str:
    async def ask() -> str:
        stream = await litellm.acompletion(**at(wire, model), tools=[CALCULATOR], stream=True)
        chunks = [chunk async for chunk in stream]
        return str(litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls)

    return asyncio.run(ask())


HOW = [plain, stream, ask_async, awaited_stream]
MODELS = ["openai/gpt-4o-mini", "hosted_vllm/some-model", "anthropic/claude-test"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", HOW)
def test_a_trained_call(wire, capture, prove, touched_names, how: Callable[..., str], model: str) -> None:
    """Whatever the provider, the engine answers, one call is recorded, with its ids, and the tool call comes back."""
    how(wire, model)  # at its first call LiteLLM fills its tables, in a class that is patched
    wire.clear()
    result = capture(how, wire, model)
    assert "calculator" in result.answer and "12 + 30" in result.answer
    assert_all_trained(result, wire, ["outer"])
    assert result.calls[0].streamed == ("stream" in how.__name__)
    assert "mine" not in str(wire.engine[0].headers)
    prove("LiteLLM", "litellm", result, async_="await" in how.__name__)
    touched_names.assert_restored("get_llm_provider", "AsyncHTTPHandler.post", "Client.build_request")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", HOW)
def test_training_off(wire, capture, how: Callable[..., str], model: str) -> None:
    """The same bytes go to the user's own provider; one readable call is recorded, whichever way it left."""
    answer = how(wire, model)
    before = wire.clear()
    result = capture(how, wire, model, train=False)
    assert_same_bytes(before, wire.clear())
    assert "12 + 30" in answer and "12 + 30" in result.answer
    (call,) = result.calls
    assert (call.role, call.trainable, call.status) == ("outer", False, "ok")
    assert call.streamed == ("stream" in how.__name__)
    assert call.message["tool_calls"][0]["function"]["name"] == "calculator"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "hosted_vllm/some-model"])
def test_responses(wire, capture, model: str, stream: bool) -> None:
    """A trained role's call to `responses` is a chat completion at the engine, and a response to its caller."""

    def ask() -> str:
        options = {"model": model, "api_base": wire.url, "api_key": "mine", "max_output_tokens": 24}
        reply = litellm.responses(input="What is 12 + 30?", stream=stream, **options)
        if stream:
            reply = [event for event in reply if event.type == "response.completed"][-1].response
        return reply.output[0].content[0].text

    async def aask() -> str:
        options = {"model": model, "api_base": wire.url, "api_key": "mine", "max_output_tokens": 24}
        reply = await litellm.aresponses(input="What is 12 + 30?", stream=stream, **options)
        if stream:
            reply = [event async for event in reply if event.type == "response.completed"][-1].response
        return reply.output[0].content[0].text

    for how in (ask, lambda: asyncio.run(aask())):
        result = capture(how)
        assert result.answer
        assert_all_trained(result, wire, ["outer"])
        assert [exchange.path.rpartition("/v1")[2] for exchange in wire.clear()] == ["/chat/completions"]


@pytest.mark.parametrize("model", ["openai/gpt-3.5-turbo-instruct", "hosted_vllm/some-model"])
def test_text_completions(wire, capture, model: str) -> None:
    """Text goes to the engine's completions, sync and async."""
    options = {"model": model, "api_base": wire.url, "api_key": "mine", "max_tokens": 8, "prompt": "12 + 30 ="}

    def ask() -> str:
        return litellm.text_completion(**options).choices[0].text

    async def aask() -> str:
        return (await litellm.atext_completion(**options)).choices[0].text

    for how in (ask, lambda: asyncio.run(aask())):
        result = capture(how)
        assert_all_trained(result, wire, ["outer"])
        assert [exchange.path.rpartition("/v1")[2] for exchange in wire.clear()] == ["/completions"]


def test_router(wire, capture) -> None:
    """A Router's calls end in the same functions."""
    router = litellm.Router(
        model_list=[{"model_name": "mine", "litellm_params": {**at(wire, "hosted_vllm/some-model")}}], num_retries=0
    )

    async def ask() -> str:
        router.completion(model="mine", messages=QUESTION)
        return (await router.acompletion(model="mine", messages=QUESTION)).choices[0].message.content

    result = capture(lambda: asyncio.run(ask()))
    assert_all_trained(result, wire, ["outer", "outer"])


@pytest.mark.parametrize("model", MODELS)
def test_errors(wire, capture, model: str) -> None:
    """LiteLLM's own error reaches the agent, and the call is recorded once as it failed; trained or not."""
    for train in (True, False):
        wire.fail(400)
        result = capture(plain, wire, model, train=train, raises=litellm.BadRequestError)
        (call,) = result.calls
        assert (call.status, call.http_status, call.trainable) == ("error", 400, train)
        wire.clear()


def test_left_early(wire, capture) -> None:
    """A stream that is dropped before its end is recorded as cancelled, with what was read."""

    def ask() -> None:
        stream = completion(**at(wire, "hosted_vllm/some-model"), stream=True)
        next(iter(stream))
        del stream
        # LiteLLM's logging keeps it alive, so that only the rollout's end tells.

    for train in (True, False):
        (call,) = capture(ask, train=train).calls
        assert call.status == "cancelled" and call.trainable == train


def test_embeddings_are_left_alone(wire, capture) -> None:
    """No engine of ours embeds: such a call of a trained role goes where it went."""

    def ask() -> None:
        litellm.embedding(
            "openai/text-embedding-3-small", input=["x"], api_base=wire.url, api_key="mine", num_retries=0
        )

    capture(ask, raises=Exception)
    assert all(exchange.face == "provider" for exchange in wire.clear())


def test_only_the_trained_role(wire, capture) -> None:
    """If there are two roles, the one that is not trained keeps its provider."""

    @lightning.agent(role="helper")
    def help_out() -> str:
        return plain(wire, "hosted_vllm/some-model")

    @lightning.agent(role="solver", trainable=True)
    def solve() -> str:
        return plain(wire, "hosted_vllm/some-model") + help_out()

    result = capture(solve, trainable=False)
    assert [(call.role, call.trainable) for call in result.calls] == [("solver", True), ("helper", False)]
    assert [exchange.face for exchange in wire.clear()] == ["engine", "provider"]


@pytest.mark.parametrize("how", [plain, stream, ask_async])
def test_a_trained_call_is_never_answered_by_the_cache(wire, capture, monkeypatch, how: Callable[..., str]) -> None:
    """Rollouts of one task ask the engine each time, and what the user's own calls left in the cache stays as it is."""
    monkeypatch.setattr(litellm, "cache", litellm.Cache(type="local"))
    how(wire, "openai/gpt-4o-mini")
    kept = dict(litellm.cache.cache.cache_dict)
    wire.clear()
    for _ in range(2):
        assert_all_trained(capture(how, wire, "openai/gpt-4o-mini"), wire, ["outer"])
    assert len(kept) == 1 and litellm.cache.cache.cache_dict == kept
