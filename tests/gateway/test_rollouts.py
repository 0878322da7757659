"""Rollouts by request: begun, scored and ended over HTTP, as an agent in another language does."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lightning_gateway.gateway import Gateway
from lightning_sdk.stream.wire import Event
from tests.gateway.asking import ask, body, connect, error, post, until
from tests.gateway.raw_server import Connection, Scripted
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder

Start = Callable[..., Gateway]

#: A whole rollout in a shell, with curl.
SHELL = """
set -eu
begun=$(curl -sS -X POST "$GATEWAY/rollouts" -H "Authorization: Bearer $TOKEN" -d '{"task": {"question": "?"}}')
key=$(printf %s "$begun" | sed -n 's/.*"key": "\\([^"]*\\)".*/\\1/p')
curl -sS "$GATEWAY/v1/chat/completions" -H "Authorization: Bearer $key.solver" -H "Content-Type: application/json" \\
    -d '{"model": "m", "messages": [{"role": "user", "content": "abc"}]}'
curl -sSN "$GATEWAY/rollout/$key/role/critic/v1/chat/completions" -H "Content-Type: application/json" \\
    -d '{"model": "m", "stream": true, "messages": [{"role": "user", "content": "xyz"}]}'
curl -sS -X POST "$GATEWAY/rollouts/$key/reward" -d '{"value": {"solver": 1.0, "critic": 0.25}, "why": "short"}'
curl -sS -X POST "$GATEWAY/rollouts/$key/end" -d '{"answer": "cba"}'
"""


def test_a_rollout_in_a_shell(gateway: Gateway, recorder: Recorder) -> None:
    """Begin, two calls of two roles, rewards, end: the events that lightning.rollout sends, in their order."""
    done = subprocess.run(
        ["sh", "-c", SHELL],
        env={"PATH": "/usr/bin:/bin", "GATEWAY": gateway.url, "TOKEN": gateway.token},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert '"calls": 2' in done.stdout
    assert [event[0] for event in recorder.events] == [
        Event.BEGIN,
        Event.REPLY,
        Event.REPLY,
        Event.REWARD,
        Event.REWARD,
        Event.END,
    ]
    assert len({event[1] for event in recorder.events}) == 1
    begin, end = recorder.events[0], recorder.events[-1]
    assert begin[3] == {"question": "?"} and (end[2], end[3], end[5]) == ("ok", "", "cba")
    assert [(call.meta.role, call.meta.streamed) for call in recorder.calls] == [("solver", False), ("critic", True)]
    assert [event[2:5] for event in recorder.of(Event.REWARD)] == [(1.0, "solver", "step"), (0.25, "critic", "step")]
    assert [event[8] for event in recorder.of(Event.REWARD)] == ["short", "short"]


def test_beginning_needs_the_token(gateway: Gateway, recorder: Recorder) -> None:
    """A rollout's key carries the gateway's own API key, so not everybody gets one."""
    for token in ("", "guess"):
        status, answer = post(f"{gateway.url}/rollouts", {}, token)
        assert status == 401 and "Bearer TOKEN" in answer["error"]["message"]
    assert recorder.events == []


@pytest.mark.parametrize(
    ("what", "data", "said"),
    [
        ("reward", b'{"value": "good"}', "'good' (str)"),
        ("reward", b"{}", "None"),
        ("reward", b'{"value": NaN}', "nan"),
        ("reward", b'{"value": {"a": 1}, "role": "b"}', "leave 'role' out"),
        ("reward", b'{"value": 1, "score": 2}', "unknown field 'score'"),
        ("reward", b'{"value": 1, "why": 2}', "expected str"),
        ("reward", b"[1]", "expected an object"),
        ("reward", b"{", "not JSON"),
        ("end", b'{"status": "fine"}', "agent_error"),
        ("end", b'{"error": 3}', "expected str"),
    ],
)
def test_what_cannot_be_taken(gateway: Gateway, recorder: Recorder, what: str, data: bytes, said: str) -> None:
    """400 that says what is wrong; nothing of it is recorded and the rollout goes on."""
    rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
    status, _, answer = ask(f"{gateway.url}/rollouts/{rollout['key']}/{what}", data)
    assert status == 400 and said in error(answer)
    assert [event[0] for event in recorder.events] == [Event.BEGIN]
    assert post(f"{gateway.url}/rollouts/{rollout['key']}/end")[0] == 200


def test_a_failed_rollout_says_so(gateway: Gateway, recorder: Recorder) -> None:
    """Status and error are those of the request."""
    rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
    post(
        f"{gateway.url}/rollouts/{rollout['key']}/end", {"status": "agent_error", "error": "TypeError: x is undefined"}
    )
    assert recorder.events[-1][2:4] == ("agent_error", "TypeError: x is undefined")


def test_the_end_closes_what_is_under_way(start: Start, recorder: Recorder) -> None:
    """A call that still runs is recorded as cancelled ahead of the end, and is stopped on both sides."""
    gone = threading.Event()

    def script(connection: Connection) -> None:
        connection.begin_stream()
        connection.chunk(b"data: {}\n\n")
        if connection.hung_up():
            gone.set()

    with Scripted(script) as upstream:
        gateway = start(upstream.url)
        rollout = post(f"{gateway.url}/rollouts", {}, gateway.token)[1]
        with connect(f"{rollout['base_url']}/chat/completions", body(stream=True)) as reader:
            until(reader, b"data: {}")
            post(f"{gateway.url}/rollouts/{rollout['key']}/end")
            kinds = [event[0] for event in recorder.events]
            assert gone.wait(60)
            left = b"".join(iter(lambda: reader.recv(65536), b""))
    gateway.close()
    assert not left.endswith(b"0\r\n\r\n")
    assert kinds == [Event.BEGIN, Event.REPLY, Event.END] == [event[0] for event in recorder.events]
    assert recorder.calls[0].meta.status == "cancelled" and "its rollout ended" in recorder.calls[0].meta.error


def test_a_gateway_that_stops_ends_its_rollouts(start: Start, provider: Provider, recorder: Recorder) -> None:
    """What was begun by request and never ended is our failure, and not the agent's."""
    gateway = start(provider.url)
    post(f"{gateway.url}/rollouts", {}, gateway.token)
    gateway.close()
    event: Any = recorder.events[-1]
    assert event[0] == Event.END and event[2] == "infrastructure_error" and "gateway was stopped" in event[3]
