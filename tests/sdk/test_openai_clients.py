"""Clients of every kind at the OpenAI seam: Azure's, with other credentials, patched by other tools."""

import contextlib
import gc
from typing import Any

import openai
import pytest

import lightning_sdk as lightning
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.sdk.trained import ASK, CHAT, assert_trained, only, train


def create(client: openai.OpenAI) -> str:
    return client.responses.create(**ASK).output_text


AZURE: dict[str, Any] = {"api_version": "2025-04-01-preview", "max_retries": 0}


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "secret", "azure_endpoint": "http://127.0.0.1:9", **AZURE},
        {"api_key": "secret", "azure_endpoint": "http://127.0.0.1:9", "azure_deployment": "mine", **AZURE},
        {"azure_ad_token": "secret", "azure_endpoint": "http://127.0.0.1:9", **AZURE},
        {"azure_ad_token_provider": lambda: "secret", "azure_endpoint": "http://127.0.0.1:9", **AZURE},
        {"api_key": "secret", "base_url": "http://127.0.0.1:9/openai/deployments/mine", **AZURE},
        {"api_key": "secret", "base_url": "http://127.0.0.1:9/openai/v1/", **AZURE},
    ],
    ids=["endpoint", "deployment", "token", "token provider", "deployment's URL", "v1"],
)
def test_azure_clients(engine: Provider, recorder: Recorder, options: dict[str, Any]) -> None:
    """Chat and Responses both reach the engine, without Azure's key, token or query."""
    lightning.init()
    with openai.AzureOpenAI(**options) as client:
        chat = train(engine, lambda: client.chat.completions.create(model="g", messages=CHAT["messages"]))
        response = train(engine, lambda: client.responses.create(**ASK))
    assert (chat.choices[0].message.content, response.output_text) == ("cba", "cba")
    assert [request.path for request in engine.requests] == ["/v1/chat/completions"] * 2
    assert all("secret" not in str(request.headers) for request in engine.requests)
    assert all(request.headers["authorization"] == "Bearer engine-key" for request in engine.requests)
    assert [call.problem for call in recorder.calls] == ["", ""]


def test_what_a_client_adds_itself_does_not_reach_the_engine(engine: Provider, recorder: Recorder) -> None:
    """Credentials of the HTTP client, keys under names of a gateway's own, and a query."""
    http = openai.DefaultHttpxClient(auth=("user", "secret"), headers={"x-portkey-api-key": "secret"})
    lightning.init()
    with openai.OpenAI(
        api_key="secret",
        base_url="http://127.0.0.1:9/v1",
        http_client=http,
        organization="secret",
        default_headers={"Helicone-Auth": "secret", "Cookie": "secret"},
        default_query={"key": "secret"},
    ) as client:
        ask = {"extra_headers": {"CF-Access-Client-Secret": "secret", "traceparent": "00-1-2-01"}}
        train(engine, lambda: client.responses.create(**ASK, **ask))
    sent = engine.requests[0]
    assert "secret" not in f"{sent.headers} {sent.path}" and sent.headers["traceparent"] == "00-1-2-01"
    assert sent.headers["authorization"] == "Bearer engine-key" and only(recorder).problem == ""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["instance", "class"])
def test_another_tool_that_replaces_request(
    provider: Provider, engine: Provider, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, when: str, where: str
) -> None:
    """On one client, as logfire does, or on the class, as OpenInference does; before or after us. Errors too."""
    seen = []
    with openai.OpenAI(api_key="secret", base_url=provider.url, max_retries=0) as client:
        if when == "after":
            lightning.init()
        original = client.request if where == "instance" else openai.OpenAI.request

        def request(*args: Any, **kwargs: Any) -> Any:
            seen.append(args)
            return original(*args, **kwargs)

        monkeypatch.setattr(client if where == "instance" else openai.OpenAI, "request", request)
        if when == "before":
            lightning.init()
        assert train(engine, lambda: create(client)) == "cba"
        assert_trained(only(recorder), engine, streamed=False)
        engine.fail = [400]
        with pytest.raises(openai.BadRequestError):
            train(engine, lambda: create(client))
        gc.collect()
    assert len(seen) == 2 and provider.requests == []
    assert [(call.meta.status, call.meta.http_status) for call in recorder.calls] == [("ok", 200), ("error", 400)]


def test_requests_that_were_seen_are_marked(provider: Provider, engine: Provider) -> None:
    """Whatever passes the seam, so that a net below it knows which requests went past."""
    marks = []
    http = openai.DefaultHttpxClient(
        event_hooks={"response": [lambda response: marks.append(response.request.extensions.get("lightning_seen"))]}
    )
    with openai.OpenAI(api_key="x", base_url=provider.url, http_client=http, max_retries=0) as client:
        client.chat.completions.create(model="x", messages=CHAT["messages"])
        lightning.init()
        client.chat.completions.create(model="x", messages=CHAT["messages"])
        train(engine, lambda: create(client))
        with contextlib.suppress(openai.APIStatusError):
            client.models.list()
    assert marks == [None, True, True, True]
