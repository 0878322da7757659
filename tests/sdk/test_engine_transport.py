"""Trained calls go straight to the engine with its own key, whatever lies around the caller's provider."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import _base_client

import lightning_sdk as lightning
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.trained import ASK, CHAT, only, train

#: httpx2 with openai 3, httpx with openai 2.
httpx = getattr(_base_client, "httpx2", None) or _base_client.httpx
#: On which this machine's own addresses are not excepted.
VARIABLES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def engine() -> Iterator[Provider]:
    with Provider() as engine:
        yield engine


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Answers by itself, so that a test sees what came by."""
    for name in (*VARIABLES, "NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Provider() as proxy:
        yield proxy


def _address(proxy: Provider) -> str:
    return proxy.url.removesuffix("/v1")


#: How a client comes to use a proxy -> the options of its HTTP client.
PROXIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "of the environment": lambda _: {},
    "given": lambda url: {"proxy": url},
    "mounted": lambda url: {"mounts": {"all://127.0.0.1": httpx.HTTPTransport(proxy=url)}},
    "in a transport": lambda url: {"transport": httpx.HTTPTransport(proxy=url)},
}


@pytest.mark.parametrize("how", PROXIES)
def test_a_trained_call_goes_past_every_proxy(
    proxy: Provider, engine: Provider, provider: Provider, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The proxy sees the caller's own calls as ever, and neither prompt nor key of a trained one."""
    if how == "of the environment":
        monkeypatch.setenv("HTTP_PROXY", _address(proxy))
    http = openai.DefaultHttpxClient(**PROXIES[how](_address(proxy)))
    lightning.init()
    with openai.OpenAI(api_key="mine", base_url=provider.url, http_client=http, max_retries=0) as client:
        client.chat.completions.create(model="g", messages=CHAT["messages"])
        assert len(proxy.requests) == 1 and provider.requests == []
        train(engine, lambda: client.chat.completions.create(model="g", messages=CHAT["messages"]))
        train(engine, lambda: client.responses.create(**ASK))
        client.chat.completions.create(model="g", messages=CHAT["messages"])
    assert [request.headers["authorization"] for request in engine.requests] == ["Bearer engine-key"] * 2
    assert [request.headers["authorization"] for request in proxy.requests] == ["Bearer mine"] * 2
    assert [call.problem for call in recorder.calls if call.meta.trainable] == ["", ""]


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_async_client_goes_past_it_too(
    proxy: Provider, engine: Provider, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Streamed as well."""
    monkeypatch.setenv(variable, _address(proxy))
    lightning.init()

    async def main() -> str:
        async with openai.AsyncOpenAI(api_key="mine", base_url="http://127.0.0.1:9/v1", max_retries=0) as client:
            stream = await client.chat.completions.create(model="g", messages=CHAT["messages"], stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert train(engine, lambda: asyncio.run(main())) == "cba"
    assert proxy.requests == [] and only(recorder).problem == ""


def _bearer(request: Any) -> None:
    request.headers["Authorization"] = "Bearer secret"
    request.headers["x-company-key"] = "secret"


async def _async_bearer(request: Any) -> None:
    _bearer(request)


class _Signing(httpx.HTTPTransport):
    """A transport of the caller's, which adds its credentials last."""

    def handle_request(self, request: Any) -> Any:
        _bearer(request)
        return super().handle_request(request)


#: Where a client's credentials may come from.
CREDENTIALS: dict[str, dict[str, Any]] = {
    "a request hook": {"event_hooks": {"request": [_bearer]}},
    "auth": {"auth": ("user", "secret")},
    "a function as auth": {"auth": lambda request: (_bearer(request), request)[1]},
    "default headers": {"headers": {"Authorization": "Bearer secret", "x-company-key": "secret"}},
    "cookies": {"cookies": {"session": "secret"}},
    "a transport": {"transport": _Signing()},
    ".netrc": {},
}


@pytest.mark.parametrize("where", CREDENTIALS)
def test_the_engine_sees_its_own_key_and_no_other(
    provider: Provider, engine: Provider, recorder: Recorder, tmp_path: Path, where: str
) -> None:
    """Whatever adds credentials, and when; the caller's own provider gets them as ever."""
    options = CREDENTIALS[where]
    if where == ".netrc":
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
        options = {"auth": httpx.NetRCAuth(str(tmp_path / "netrc"))}
    http = openai.DefaultHttpxClient(**options)
    lightning.init()
    with openai.OpenAI(api_key="mine", base_url=provider.url, http_client=http, max_retries=0) as client:
        client.chat.completions.create(model="g", messages=CHAT["messages"])
        train(engine, lambda: client.chat.completions.create(model="g", messages=CHAT["messages"]))
    [theirs], [ours] = provider.requests, engine.requests
    assert theirs.headers["authorization"] != "Bearer mine" or "secret" in str(theirs.headers)
    assert ours.headers["authorization"] == "Bearer engine-key"
    assert "secret" not in str(ours.headers) and "mine" not in str(ours.headers) and "c2VjcmV0" not in str(ours.headers)
    assert ours.headers["x-lightning-rollout"] == "0" * 32


def test_an_async_hook_does_not_change_the_key(engine: Provider, recorder: Recorder) -> None:
    """The same for the other client."""
    http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [_async_bearer]})
    lightning.init()

    async def main() -> None:
        async with openai.AsyncOpenAI(
            api_key="mine", base_url="http://127.0.0.1:9/v1", http_client=http, max_retries=0
        ) as client:
            await client.chat.completions.create(model="g", messages=CHAT["messages"])

    train(engine, lambda: asyncio.run(main()))
    assert engine.requests[0].headers["authorization"] == "Bearer engine-key"
    assert "secret" not in str(engine.requests[0].headers) and only(recorder).problem == ""


def test_the_key_is_seen_by_nothing_above_the_engine(engine: Provider, recorder: Recorder) -> None:
    """A hook that logs headers logs the caller's own key and not the one that the engine takes."""
    seen: list[dict[str, str]] = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [lambda request: seen.append(dict(request.headers))]})
    lightning.init()
    with openai.OpenAI(api_key="mine", base_url="http://127.0.0.1:9/v1", http_client=http, max_retries=0) as client:
        train(engine, lambda: client.chat.completions.create(model="g", messages=CHAT["messages"]))
    assert "engine-key" not in str(seen) and seen[0]["authorization"] == "Bearer mine"
    assert engine.requests[0].headers["authorization"] == "Bearer engine-key"


def test_the_way_to_the_engine_closes_with_the_client(engine: Provider) -> None:
    """No connection outlives the client that made it, and a client keeps one way for all its calls."""
    lightning.init()
    http = openai.DefaultHttpxClient()
    with openai.OpenAI(api_key="mine", base_url="http://127.0.0.1:9/v1", http_client=http, max_retries=0) as client:
        for _ in range(3):
            train(engine, lambda: client.chat.completions.create(model="g", messages=CHAT["messages"]))
        [way] = [way for way in http._mounts.values() if type(way).__name__ == "EngineTransport"]
        assert len(way._pool.connections) == 1
    assert way._pool.connections == []


def test_a_client_is_used_in_one_event_loop_after_another(engine: Provider, recorder: Recorder) -> None:
    """As one that is made with its module is, by a training and then an evaluation in one process. What a loop has left
    behind goes with it: a client keeps one way, however many loops there were."""
    lightning.init()
    http = openai.DefaultAsyncHttpxClient()
    client = openai.AsyncOpenAI(api_key="mine", base_url="http://127.0.0.1:9/v1", http_client=http, max_retries=0)

    async def ask() -> None:
        await client.chat.completions.create(model="g", messages=CHAT["messages"])

    async def close() -> None:
        await ask()
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's, of a connection that its loop did not close
        for use in (ask, ask, close):
            train(engine, lambda use=use: asyncio.run(use()))
        [way] = [way for way in http._mounts.values() if type(way).__name__ == "AsyncEngineTransport"]
        assert len(vars(way)["_of_loops"]) == 1
        gc.collect()
    assert [call.problem for call in recorder.calls] == [""] * 3 and len(engine.requests) == 3
