"""Who speaks: the rollout and the role of a call, from its URL, its headers or its key, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_gateway.gateway import Gateway
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from lightning_sdk.trace.scope import RolloutScope, Scope, current_scope
from tests.gateway.asking import ask, body, error, post
from tests.gateway.raw_server import Scripted
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

Start = Callable[..., Gateway]


@pytest.fixture
def begun_rollout(gateway: Gateway) -> dict[str, str]:
    """A rollout begun by request, whose role is writer unless a call says otherwise."""
    return post(f"{gateway.url}/rollouts", {"role": "writer"}, gateway.token)[1]


def test_roles_from_each_source(gateway: Gateway, recorder: Recorder, begun_rollout: dict[str, str]) -> None:
    """Header before URL before the key's label before the rollout's own role."""
    key, base = begun_rollout["key"], f"{gateway.url}/rollout/{begun_rollout['key']}"
    asked = [
        (f"{base}/v1/chat/completions", {}, "writer"),
        (f"{gateway.url}/v1/chat/completions", {"authorization": f"Bearer {key}"}, "writer"),
        (f"{gateway.url}/v1/chat/completions", {"x_api_key": f"{key}.critic"}, "critic"),
        (f"{base}/role/the%20judge/v1/chat/completions", {"authorization": f"Bearer {key}.critic"}, "the judge"),
        (f"{base}/role/judge/v1/chat/completions", {"x_lightning_role": "poet"}, "poet"),
    ]
    for url, headers, _ in asked:
        assert ask(url, body(), **headers)[0] == 200
    rollout = recorder.of(Event.BEGIN)[0][1]
    assert [event[1] for event in recorder.of(Event.REPLY)] == [rollout] * len(asked)
    assert [call.meta.role for call in recorder.calls] == [role for _, _, role in asked]


def test_outside_of_any_rollout(start: Start, provider: Provider, recorder: Recorder) -> None:
    """The gateway's own role, unless the call names one; no rollout."""
    gateway = start(provider.url, role="somebody")
    ask(f"{gateway.url}/v1/chat/completions", body())
    ask(f"{gateway.url}/role/writer/v1/chat/completions", body(), authorization="Bearer sk-mine")
    assert [call.meta.role for call in recorder.calls] == ["somebody", "writer"]
    assert {event[1] for event in recorder.events} == {NO_ROLLOUT}
    assert provider.requests[1].headers["authorization"] == "Bearer sk-mine"


def test_a_rollouts_key_is_never_sent_on(start: Start, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's own key for that server takes its place; a caller's own key stays; strangers get none."""
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
        gateway = start()
        rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
        url = f"{rollout['base_url']}/chat/completions"
        ask(url, body(), authorization=f"Bearer {rollout['key']}.writer")
        ask(url, body(), authorization="Bearer sk-callers-own")
        ask(f"{gateway.url}/v1/chat/completions", body())
        monkeypatch.setenv("LIGHTNING_UPSTREAM_KEY", "sk-other-server")
        ask(f"{start(upstream.url).url}/v1/chat/completions", body())
        shown = [request.header("authorization") for request in upstream.requests]
        assert shown == ["Bearer sk-openai", "Bearer sk-callers-own", None, None]
        assert not any(rollout["key"] in str(request.headers) for request in upstream.requests)


def test_a_key_goes_only_to_its_own_host(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY is OpenAI's: another server gets LIGHTNING_UPSTREAM_KEY, or nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        gateway = start(upstream.url)
        rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
        ask(f"{rollout['base_url']}/chat/completions", body(), authorization=f"Bearer {rollout['key']}")
        monkeypatch.setenv("LIGHTNING_UPSTREAM_KEY", "sk-local")
        ask(f"{rollout['base_url']}/chat/completions", body(), authorization=f"Bearer {rollout['key']}")
        ask(f"{rollout['base_url']}/messages", body(), x_api_key=rollout["key"])
        assert [request.header("authorization") for request in upstream.requests] == [None, "Bearer sk-local", None]
        assert upstream.requests[2].header("x-api-key") == "sk-local"


def test_unknown_and_ended_keys(gateway: Gateway, provider: Provider, begun_rollout: dict[str, str]) -> None:
    """404 for a URL and 401 for an API key, in the caller's protocol; nothing reaches the provider."""
    assert post(f"{gateway.url}/rollouts/{begun_rollout['key']}/end")[0] == 200
    for key in (begun_rollout["key"], "lr-guess", begun_rollout["key"][:-1]):
        status, _, answer = ask(f"{gateway.url}/rollout/{key}/v1/chat/completions", body())
        assert status == 404 and "it has ended" in error(answer)
        status, _, answer = ask(f"{gateway.url}/v1/chat/completions", body(), authorization=f"Bearer {key}.writer")
        assert status == 401 and json.loads(answer)["error"]["type"] == "authentication_error"
        status, _, answer = ask(f"{gateway.url}/v1/messages", body(), x_api_key=key)
        assert status == 401 and json.loads(answer)["error"]["type"] == "authentication_error"
        for what in ("reward", "end"):
            assert post(f"{gateway.url}/rollouts/{key}/{what}", {"value": 1.0})[0] == 404
    assert provider.requests == []


def test_a_key_opens_its_own_rollout_only(gateway: Gateway, recorder: Recorder, begun_rollout: dict[str, str]) -> None:
    """What one key's holder does counts for that rollout; two rollouts in one request are refused."""
    other = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
    assert other["key"] != begun_rollout["key"]
    keys = [event[1] for event in recorder.of(Event.BEGIN)]
    post(f"{gateway.url}/rollouts/{other['key']}/reward", {"value": 1.0})
    # Another's key in a header changes nothing about whose reward it is.
    post(f"{gateway.url}/rollouts/{other['key']}/reward", {"value": 2.0}, token=begun_rollout["key"])
    assert [event[1:3] for event in recorder.of(Event.REWARD)] == [(keys[1], 1.0), (keys[1], 2.0)]
    status, _, answer = ask(
        f"{gateway.url}/rollout/{begun_rollout['key']}/v1/chat/completions",
        body(),
        authorization=f"Bearer {other['key']}",
    )
    assert status == 401 and "two different rollouts" in error(answer)
    # The secret under which the hub files events is not what callers hold.
    assert keys[0].hex() not in json.dumps(begun_rollout) and begun_rollout["id"] not in begun_rollout["key"]


def test_a_declared_role_keeps_its_own_word_on_training(gateway: Gateway) -> None:
    """A role that a call names is trained where the code around it is, unless that role was declared otherwise."""
    from lightning_gateway.caller import caller  # noqa: PLC0415 - beside its only use

    @lightning.agent(role="checker")
    def check() -> None: ...

    outer = Scope(rollout=RolloutScope("r", b"k" * 16), role="solver", trainable=True, named=True)
    key = gateway.environment(outer)["OPENAI_API_KEY"]
    said = [
        caller(gateway._grants, "/v1/models", {"x-api-key": f"{key}{label}"}, "").scope
        for label in ("", ".planner", ".checker")
    ]
    assert [(scope.role, scope.trainable) for scope in said] == [
        ("solver", True),
        ("planner", True),
        ("checker", False),
    ]
    assert current_scope() == Scope()


def test_a_role_has_a_bound(gateway: Gateway) -> None:
    """Headers are not the place for a novel."""
    status, _, answer = ask(f"{gateway.url}/v1/chat/completions", body(), x_lightning_role="x" * 201)
    assert status == 400 and "201 characters" in error(answer)


def test_our_key_for_the_provider_goes_with_questions_to_models_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout's key deletes no files and reads no stored replies of the account that pays."""
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        monkeypatch.setenv("LIGHTNING_UPSTREAM_KEY", "sk-operators")
        gateway = start(upstream.url)
        rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
        inside, shown = f"{gateway.url}/rollout/{rollout['key']}", {"authorization": f"Bearer {rollout['key']}"}
        for method, path in (
            ("DELETE", "files/a"),
            ("GET", "files"),
            ("POST", "batches"),
            ("GET", "responses/r"),
            ("DELETE", "models/m"),
            ("POST", "fine_tuning/jobs"),
            ("POST", "x/chat/completions"),
            ("GET", "chat/completions"),
            ("POST", "organization/admin_api_keys"),
            ("PATCH", "responses"),
            ("HEAD", "models"),
            ("POST", "models"),
        ):
            assert ask(f"{inside}/v1/{path}", b"{}", method=method)[0] == 403, (method, path)
            assert ask(f"{gateway.url}/v1/{path}", b"{}", method=method, **shown)[0] == 403, (method, path)
        assert upstream.requests == []
        for method, path in (("POST", "embeddings"), ("GET", "models"), ("GET", "models/a%2Fb"), ("POST", "responses")):
            assert ask(f"{inside}/v1/{path}", b"{}", method=method)[0] == 200, (method, path)
        assert {request.header("authorization") for request in upstream.requests} == {"Bearer sk-operators"}


@pytest.mark.parametrize("climb", ["..", "%2e%2e", ".%2E", "%252e%252e", "..%2Fx", "..%5cx", "..;a", "."])
def test_no_path_climbs_out_of_the_upstreams(start: Start, climb: str) -> None:
    """Not out of its base path, no matter who asks, and not by what a server on the way would decode."""
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        gateway = start(f"{upstream.url}/tenant")
        rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
        for base in (gateway.url, f"{gateway.url}/rollout/{rollout['key']}"):
            for path in (f"v1/models/{climb}/{climb}/admin", f"{climb}/v1/chat/completions", f"v1/{climb}/responses"):
                assert ask(f"{base}/{path}", body(), authorization="Bearer sk-mine")[0] in {400, 404}, path
        assert upstream.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec_fetch_site": "cross-site"},
        {"host": "evil.example"},
        {"host": "evil.example:4800"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example"},
    ],
)
def test_a_web_page_gets_nothing(
    gateway: Gateway, provider: Provider, begun_rollout: dict[str, str], headers: Any
) -> None:
    """Neither one that posts to the port, nor one whose own name has become this machine's address."""
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("OPTIONS", "/v1/models"),
        ("POST", "/rollouts"),
        ("POST", f"/rollouts/{begun_rollout['key']}/reward"),
        ("POST", f"/rollout/{begun_rollout['key']}/v1/chat/completions"),
    ):
        shown = {"authorization": f"Bearer {gateway.token}", **headers} if path == "/rollouts" else headers
        status, told, _ = ask(gateway.url + path, body(value=1.0), method=method, **shown)
        assert status == 403 and "access-control-allow-origin" not in told, (path, headers)
    assert provider.requests == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost:1", "[::1]:4800", "LOCALHOST", "a.localhost", "192.0.2.7"])
def test_names_that_are_this_machines_own(gateway: Gateway, name: str) -> None:
    """What a port forwarder, a container or a person calls it by."""
    assert ask(f"{gateway.url}/v1/chat/completions", body(), host=name)[0] == 200
