"""`lightning-sdk gateway` as a process beside a real hub: what it prints, and what is kept however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from lightning_sdk import cli
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Call
from tests.gateway.asking import ask, body, connect, post, until
from tests.gateway.raw_server import Connection, Scripted
from tests.hub.hubs import KEY, Hub, read_log, rollouts
from tests.learner.arrivals import count_connections
from tests.sdk.provider import Provider
from tests.waiting import wait_for

COMMAND = [sys.executable, "-m", "lightning_sdk.cli", "gateway"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "run")
    yield hub
    hub.kill()


Run = Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]


@pytest.fixture
def run(hub: Hub) -> Iterator[Run]:
    """Start the command with --json; the process and what it printed."""
    started: list[subprocess.Popen[str]] = []

    def starter(upstream: str, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        command = [*COMMAND, "--json", "--upstream", upstream, "--hub", hub.address, "--key", KEY, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        return started[-1], json.loads(started[-1].stdout.readline())

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def calls(hub: Hub) -> list[Call]:
    """Every call in the hub's log, once the hub has ended."""
    hub.stop()
    return [Call.unpack(event[2]) for event in read_log(hub.folder) if event[0] == Event.CALL]


def test_what_passed_is_in_the_hub_when_it_ends(run: Run, hub: Hub, provider: Provider) -> None:
    """Calls and a whole rollout, right before Ctrl-C; exit code 0."""
    process, facts = run(provider.url, "--role", "main")
    ask(f"{facts['url']}/v1/chat/completions", body())
    rollout = post(f"{facts['url']}/rollouts", {"task": {"q": 1}}, facts["token"])[1]
    ask(f"{rollout['base_url']}/chat/completions", body(stream=True), x_lightning_role="solver")
    post(f"{facts['url']}/rollouts/{rollout['key']}/reward", {"value": 1.0})
    post(f"{facts['url']}/rollouts/{rollout['key']}/end", {"answer": "cba"})
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert [(call.meta.role, call.meta.status) for call in calls(hub)] == [("main", "ok"), ("solver", "ok")]
    assert rollouts(hub.folder) == [(rollout["id"], "ok", "", "cba")]


def test_a_thousand_may_call_at_once(run: Run, provider: Provider) -> None:
    """None of them has to try again, which takes a second."""
    process, facts = run(provider.url)
    assert count_connections(facts["url"], process.pid) == 1000
    assert ask(f"{facts['url']}/v1/chat/completions", body())[0] == 200


def test_a_call_under_way_when_it_ends(run: Run, hub: Hub) -> None:
    """It is recorded as cancelled with what had come, and its rollout as ended through no fault of the agent."""

    def script(connection: Connection) -> None:
        connection.begin_stream()
        connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n')
        connection.hung_up()

    with Scripted(script) as upstream:
        process, facts = run(upstream.url)
        rollout = post(f"{facts['url']}/rollouts", {}, facts["token"])[1]
        with connect(f"{rollout['base_url']}/chat/completions", body(stream=True)) as reader:
            until(reader, b"half")
            process.terminate()
            assert process.wait(60) == 0
    (call,) = calls(hub)
    assert call.meta.status == "cancelled" and call.choices[0].message == b'{"content":"half"}'
    assert [row[1] for row in rollouts(hub.folder)] == ["infrastructure_error"]


def test_a_call_under_way_at_shutdown(hub: Hub) -> None:
    """In a process of the user's own: `shutdown()` stops the gateway before it flushes."""

    def script(connection: Connection) -> None:
        connection.begin_stream()
        connection.chunk(b"data: {}\n\n")
        connection.hung_up()

    lightning.init(hub.address, KEY, integrations=set())
    with Scripted(script) as upstream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", upstream.url)
        url = lightning.gateway_environment()["OPENAI_BASE_URL"]
        with connect(f"{url}/chat/completions", body(stream=True)) as reader:
            until(reader, b"data: {}")
            lightning.shutdown()
    assert [call.meta.status for call in calls(hub)] == ["cancelled"]


def test_kill_loses_nothing_that_was_answered_long_ago(run: Run, hub: Hub, provider: Provider) -> None:
    """kill -9: what the hub had confirmed stays; the gateway's address is free again."""
    process, facts = run(provider.url)
    ask(f"{facts['url']}/v1/chat/completions", body())
    wait_for(lambda: _holds(hub, b"cba"), "the call in the hub's log")
    process.kill()
    process.wait()
    with pytest.raises(ConnectionRefusedError):
        ask(f"{facts['url']}/v1/chat/completions", body())
    assert [call.meta.status for call in calls(hub)] == ["ok"]


def _holds(hub: Hub, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in (hub.folder / "spans").glob("*.log"))


def test_the_hub_comes_later(run: Run, hub: Hub, provider: Provider) -> None:
    """While the hub is away agents are served, and what they did reaches it when it is back."""
    process, facts = run(provider.url)
    hub.kill()
    assert ask(f"{facts['url']}/v1/chat/completions", body())[0] == 200
    hub.start()
    process.terminate()
    assert process.wait(60) == 0
    assert [call.meta.status for call in calls(hub)] == ["ok"]


def test_what_it_prints(provider: Provider) -> None:
    """Addresses to copy, and that nothing is recorded where no hub is."""
    process = subprocess.Popen([*COMMAND, "--upstream", provider.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    process.terminate()
    process.communicate()
    assert "NOT recorded" in lines[0] and "lightning-sdk serve" in lines[0] and provider.url in lines[0]
    assert "OPENAI_BASE_URL=http://127.0.0.1:" in lines[1] and "curl -X POST" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--upstream", "nowhere"], "nowhere"),
        (["--hub", "127.0.0.1:4717"], "tcp://HOST:PORT"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_wrong_command_lines(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and one line that says what to type."""
    assert cli.main(["gateway", *arguments]) == 1
    assert said in capsys.readouterr().err
