"""`lightning.gateway_environment()`: a program in any language is part of the rollout and role that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk.commands import gateway as gateways
from lightning_sdk.stream.wire import NO_ROLLOUT, Event
from tests.gateway.asking import ask, body
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

#: An agent that knows nothing but two variables: one request over a plain socket, nothing imported of ours.
AGENT = """
import os, socket, sys
base = os.environ["OPENAI_BASE_URL"].removeprefix("http://")
host, _, path = base.partition("/")
data = b'{"model": "m", "messages": [{"role": "user", "content": "%s"}]}' % sys.argv[1].encode()
s = socket.create_connection(tuple(host.split(":")))
s.sendall((f"POST /{path}/chat/completions HTTP/1.0\\r\\nHost: {host}\\r\\nContent-Length: {len(data)}\\r\\n"
           f"Authorization: Bearer {os.environ['OPENAI_API_KEY']}\\r\\n\\r\\n").encode() + data)
print(s.makefile().read())
"""


def run(text: str) -> str:
    environment = {**os.environ, **lightning.gateway_environment()}
    done = subprocess.run(
        [sys.executable, "-S", "-c", AGENT, text],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture
def paid_provider(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The provider as the user's own environment names it."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    return provider


def test_a_program_is_part_of_the_rollout(paid_provider: Provider, recorder: Recorder) -> None:
    """Its calls lie in the rollout, under the role and the span of the function that started it, before its end."""

    @lightning.agent(role="outer")
    def outer() -> None:
        run("abc")
        inner()
        run("xyz")

    @lightning.agent
    def inner() -> None:
        run("123")

    with lightning.rollout({"question": "?"}):
        outer()
    assert [(call.meta.role, call.meta.parent) for call in recorder.calls] == [
        (span.role, span.id) for span in (recorder.spans[1], recorder.spans[0], recorder.spans[1])
    ]
    assert recorder.events[0][0] == Event.BEGIN and recorder.events[-1][0] == Event.END
    assert len({event[1] for event in recorder.events}) == 1
    assert {request.headers["authorization"] for request in paid_provider.requests} == {"Bearer sk-mine"}


def test_it_ends_with_the_rollout(paid_provider: Provider, recorder: Recorder) -> None:
    """A program that outlives its rollout gets an error and records nothing; the next rollout has its own key."""
    with lightning.rollout():
        first = lightning.gateway_environment()
        assert first == lightning.gateway_environment()
    with lightning.rollout():
        second = lightning.gateway_environment()
        assert ask(f"{first['OPENAI_BASE_URL']}/chat/completions", body())[0] == 404
        assert ask(f"{second['OPENAI_BASE_URL']}/chat/completions", body())[0] == 200
    assert first["OPENAI_API_KEY"] != second["OPENAI_API_KEY"]
    assert [event[0] for event in recorder.events].count(Event.REPLY) == 1


def test_a_program_may_score_but_not_end_what_it_is_part_of(paid_provider: Provider, recorder: Recorder) -> None:
    """As emit_reward() inside an agent; the rollout is ended by the program that began it."""
    with lightning.rollout():
        url = lightning.gateway_environment()["LIGHTNING_ROLLOUT_URL"]
        assert ask(f"{url}/reward", {"value": 0.5, "role": "solver"})[0] == 200
        assert ask(f"{url}/end", {})[0] == 403
    assert [event[0] for event in recorder.events] == [Event.BEGIN, Event.REWARD, Event.END]


def test_outside_of_a_rollout(paid_provider: Provider, recorder: Recorder) -> None:
    """Recorded under its role, in no rollout; one key for each role however often it is asked for."""

    @lightning.agent(role="observer")
    def observe() -> dict[str, str]:
        run("abc")
        return lightning.gateway_environment()

    assert observe() == observe()
    assert [(event[1], event[2].role) for event in recorder.of(Event.REPLY)] == [(NO_ROLLOUT, "observer")] * 2


def test_programs_do_not_ask_the_users_proxy(paid_provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a proxy is set, this machine is named as an exception."""
    assert "NO_PROXY" not in lightning.gateway_environment()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    assert lightning.gateway_environment()["NO_PROXY"] == "internal.example,127.0.0.1"


def test_shutdown_stops_it(paid_provider: Provider) -> None:
    """The thread ends with the session, and the next use starts another."""
    url = lightning.gateway_environment()["OPENAI_BASE_URL"]
    lightning.shutdown()
    with pytest.raises(ConnectionRefusedError):
        ask(f"{url}/chat/completions", body())
    assert ask(f"{lightning.gateway_environment()['OPENAI_BASE_URL']}/chat/completions", body())[0] == 200


def test_an_environment_without_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for name in [each for each in sys.modules if each.startswith("lightning_gateway")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(lightning.SettingError, match=r"lightning-agent-sdk\[gateway\]"):
        lightning.gateway_environment()


def test_no_gateway_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the entry point says so."""
    monkeypatch.setattr(gateways, "GROUP", "lightning_sdk.no_such_group")
    with pytest.raises(lightning.SettingError, match="no gateway is installed"):
        lightning.gateway_environment()


def test_it_lasts_as_long_as_its_process(tmp_path: Any) -> None:
    """Killed or not, a process takes its gateway along."""
    code = (
        "import lightning_sdk as l, time; print(l.gateway_environment()['OPENAI_BASE_URL'], flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        url = process.stdout.readline().strip()
        assert ask(f"{url.rpartition('/')[0]}x/v1/models", method="GET")[0] == 404
        process.kill()
        process.wait()
    with pytest.raises(ConnectionRefusedError):
        ask(url, method="GET")
