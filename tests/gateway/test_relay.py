"""Calls that are not trained: unchanged in both directions, recorded whole, and honest about what goes wrong."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from lightning_gateway.gateway import Gateway
from lightning_sdk.errors import PortInUse, SettingError
from lightning_sdk.trace.call import Call
from tests.gateway.asking import ask, body, connect, error, until
from tests.gateway.raw_server import Connection, Scripted
from tests.sdk.provider import Provider
from tests.sdk.recorder import Recorder
from tests.waiting import wait_for

Start = Callable[..., Gateway]
#: A stream with what gateways like to spoil: comments, odd line ends, an event in two pieces, a split character.
PIECES = [
    b": hello\r\n\r\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"\xe2\x82',
    b'\xac"}}]}\n\n',
    b"event: x\ndata: {}\n\n",
    b"data: [DONE]\n\n",
]


def calls(recorder: Recorder, number: int) -> list[Call]:
    """The calls recorded, once there are so many; a cancelled call is recorded after its reader has gone."""
    wait_for(lambda: len(recorder.calls) >= number, lambda: recorder.calls)
    assert len(recorder.calls) == number
    return recorder.calls


def test_a_request_passes_unchanged(start: Start) -> None:
    """Body bytes, path, query and the caller's headers reach the upstream; the gateway's own do not."""
    sent = b'{ "model" : "m",\n "messages": [],  "strange": 1.50 }'
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        gateway = start(upstream.url)
        headers = {"authorization": "Bearer sk-mine", "openai-organization": "org", "x-lightning-role": "writer"}
        ask(f"{gateway.url}/v1/chat/completions?api-version=1&a=b%20c", sent, **headers)
        request = upstream.requests[0]
    assert request.line == "POST /v1/chat/completions?api-version=1&a=b%20c HTTP/1.1"
    assert request.body == sent
    assert request.header("authorization") == "Bearer sk-mine" and request.header("openai-organization") == "org"
    assert request.header("x-lightning-role") is None and request.header("user-agent") is None
    assert request.header("host") == upstream.url.removeprefix("http://")


def test_a_stream_passes_byte_for_byte_and_as_it_comes(start: Start, recorder: Recorder) -> None:
    """Each piece is with the reader before the upstream sends the next; what is recorded is what passed."""
    gate = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.begin_stream("x-request-id: r1")
        for piece in PIECES:
            connection.chunk(piece)
            assert gate.acquire(timeout=10)
        connection.end_stream()

    with (
        Scripted(script) as upstream,
        connect(f"{start(upstream.url).url}/v1/chat/completions", body(stream=True)) as reader,
    ):
        head = until(reader, b"\r\n\r\n")
        got = head.partition(b"\r\n\r\n")[2]
        for piece in PIECES:
            got += until(reader, piece) if piece not in got else b""
            gate.release()
        got += until(reader, b"0\r\n\r\n")
    assert b"x-request-id: r1" in head and b"text/event-stream" in head
    assert _unchunk(got) == b"".join(PIECES)
    (event,) = recorder.events
    assert event[4] == b"".join(PIECES)
    assert recorder.calls[0].meta.streamed and recorder.calls[0].meta.status == "ok"


def _unchunk(data: bytes) -> bytes:
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        out, data = out + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return out


def test_the_openai_client_sees_no_difference(gateway: Gateway, provider: Provider, recorder: Recorder) -> None:
    """Plain and streamed completions through the gateway equal those without it."""
    for url in (provider.url, f"{gateway.url}/v1"):
        with openai.OpenAI(base_url=url, api_key="sk-mine", max_retries=0) as client:
            whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "abc"}])
            stream = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "abc"}], stream=True
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert whole.choices[0].message.content == text == "cba"
    plain, streamed = provider.requests[:2], provider.requests[2:]
    assert [each.raw for each in plain] == [each.raw for each in streamed]
    assert [call.meta.status for call in calls(recorder, 2)] == ["ok", "ok"]
    assert [call.choices[0].message for call in recorder.calls] == [
        b'{"role": "assistant", "content": "cba"}',
        b'{"content":"cba"}',
    ]


def test_a_reader_may_stop_at_done(start: Start, recorder: Recorder) -> None:
    """Clients hang up after the last event without waiting for the end: such a call is whole."""

    def script(connection: Connection) -> None:
        connection.begin_stream()
        connection.chunk(PIECES[1] + PIECES[2] + PIECES[4])
        connection.hung_up()

    with Scripted(script) as upstream:
        with connect(f"{start(upstream.url).url}/v1/chat/completions", body(stream=True)) as reader:
            until(reader, b"[DONE]")
        assert calls(recorder, 1)[0].meta.status == "ok"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_has_read_a_reply_finds_it_recorded(start: Start, recorder: Recorder, stream: bool) -> None:
    """Though the upstream's connection stays open, and its end never shows: the next thing may be the rollout's end."""
    asked = threading.Event()

    def script(connection: Connection) -> None:
        if stream:
            connection.begin_stream()
            connection.chunk(PIECES[1] + PIECES[2] + PIECES[4])
        else:
            connection.answer(b'{"choices": []}')
        assert asked.wait(60)

    with (
        Scripted(script) as upstream,
        connect(f"{start(upstream.url).url}/v1/chat/completions", body(stream=stream)) as reader,
    ):
        until(reader, b"[DONE]\n\n" if stream else b'{"choices": []}')
        assert [call.meta.status for call in recorder.calls] == ["ok"]
        asked.set()


@pytest.mark.parametrize("answered", [True, False])
def test_a_reader_that_goes_away_cancels(start: Start, recorder: Recorder, answered: bool) -> None:
    """The upstream's connection is closed, before its first byte or after, and the call says that it was cancelled."""
    gone, asked = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        if answered:
            connection.begin_stream()
            connection.chunk(PIECES[1] + PIECES[2])
        asked.set()
        if connection.hung_up():
            gone.set()

    with Scripted(script) as upstream:
        with connect(f"{start(upstream.url).url}/v1/chat/completions", body(stream=True)) as reader:
            assert asked.wait(60)
            if answered:
                until(reader, PIECES[2])
        assert gone.wait(60)
        (call,) = calls(recorder, 1)
    assert call.meta.status == "cancelled"
    assert [choice.message for choice in call.choices] == (['{"content":"€"}'.encode()] if answered else [])


def test_a_slow_reader_slows_the_upstream(start: Start, recorder: Recorder) -> None:
    """Nothing piles up in the gateway: an upstream that could send 64 MiB waits for a reader that takes none."""
    sent = 0
    moved = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        nonlocal sent
        connection.begin_stream()
        for _ in range(64):
            connection.chunk(bytes(2**20))
            sent += 1
            moved.release()
        connection.end_stream()

    with Scripted(script) as upstream, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        gateway = start(upstream.url)
        host, port = gateway.url.removeprefix("http://").split(":")
        reader.connect((host, int(port)))
        reader.sendall(b"GET /v1/files/1/content HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while moved.acquire(timeout=0.5):  # until nothing has moved for a while
            pass
        assert sent < 32


@pytest.mark.parametrize(("status", "told"), [(400, "error"), (429, "error"), (500, "error")])
def test_errors_of_the_upstream_pass(
    gateway: Gateway, provider: Provider, recorder: Recorder, status: int, told: str
) -> None:
    """Status, headers and body are the provider's own; the call is recorded with its message."""
    provider.fail = [status]
    answered, headers, answer = ask(f"{gateway.url}/v1/chat/completions", body())
    assert (answered, json.loads(answer)["error"]["message"]) == (status, "no")
    assert headers["retry-after-ms"] == "1"
    (call,) = calls(recorder, 1)
    assert (call.meta.status, call.meta.http_status, call.problem) == (told, status, f"HTTP {status}: no")


def test_an_upstream_that_is_away(start: Start, recorder: Recorder) -> None:
    """502 in the caller's own protocol, with the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
    gateway = start(away)
    status, _, answer = ask(f"{gateway.url}/v1/chat/completions", body())
    assert status == 502 and away in error(answer) and "--upstream" in error(answer)
    status, _, answer = ask(f"{gateway.url}/v1/messages", body(), anthropic_version="2023-06-01")
    shaped = json.loads(answer)
    assert (status, shaped["type"], shaped["error"]["type"]) == (502, "error", "api_error")
    assert [call.meta.status for call in calls(recorder, 2)] == ["error", "error"]
    assert away in recorder.calls[0].meta.error


def test_an_upstream_that_says_nothing(start: Start, recorder: Recorder) -> None:
    """504 after the time limit."""
    with Scripted(lambda c: c.hung_up() and None) as upstream:
        status, _, answer = ask(f"{start(upstream.url, timeout=0.2).url}/v1/completions", b"{}")
    assert status == 504 and "0.2 s" in error(answer)
    assert calls(recorder, 1)[0].meta.status == "error"


def test_a_reply_that_breaks_off(start: Start, recorder: Recorder) -> None:
    """The reader sees it break off too, and never a clean end; the call is an error."""

    def script(connection: Connection) -> None:
        connection.begin_stream()
        connection.chunk(PIECES[1] + PIECES[2])
        connection.socket.shutdown(socket.SHUT_RDWR)

    with (
        Scripted(script) as upstream,
        connect(f"{start(upstream.url).url}/v1/chat/completions", body(stream=True)) as reader,
    ):
        got = b""
        try:
            while piece := reader.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
    assert not got.endswith(b"0\r\n\r\n")
    (call,) = calls(recorder, 1)
    assert call.meta.status == "error" and call.choices[0].message == '{"content":"€"}'.encode()


def test_a_compressed_reply_passes_and_is_readable(start: Start, recorder: Recorder) -> None:
    """The caller gets the compressed bytes; only encodings that can be recorded are asked for."""
    packed = gzip.compress(json.dumps({"choices": [{"message": {"content": "4"}}]}).encode())
    with Scripted(lambda c: c.answer(packed, "200 OK", "Content-Encoding: gzip")) as upstream:
        url = f"{start(upstream.url).url}/v1/chat/completions"
        _, headers, answer = ask(url, body(), accept_encoding="zstd, gzip;q=0.8, br")
        assert upstream.requests[0].header("accept-encoding") == "gzip;q=0.8"
    assert answer == packed and headers["content-encoding"] == "gzip"
    assert calls(recorder, 1)[0].choices[0].message == b'{"content": "4"}'


def test_a_compressed_request_passes_unchanged(start: Start) -> None:
    """What the caller packed is not unpacked on the way."""
    packed = gzip.compress(body())
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        ask(f"{start(upstream.url).url}/v1/chat/completions", packed, content_encoding="gzip")
        assert upstream.requests[0].body == packed and upstream.requests[0].header("content-encoding") == "gzip"


def test_other_paths_pass_and_are_not_recorded(start: Start, recorder: Recorder) -> None:
    """Uploads of any size, other methods, redirects and unknown paths are the provider's business."""
    upload = bytes(range(256)) * 4096 * 8
    with Scripted(lambda c: c.answer(b"moved", "307 Temporary Redirect", "Location: /v1/elsewhere")) as upstream:
        gateway = start(upstream.url)
        status, headers, answer = ask(f"{gateway.url}/v1/files/a%2Fb", upload)
        assert (status, headers["location"], answer) == (307, "/v1/elsewhere", b"moved")
        ask(f"{gateway.url}/v1/responses/resp_1", method="DELETE")
        ask(f"{gateway.url}/v1/threads/t/messages", b"{}")
        assert [each.line.split()[:2] for each in upstream.requests] == [
            ["POST", "/v1/files/a%2Fb"],
            ["DELETE", "/v1/responses/resp_1"],
            ["POST", "/v1/threads/t/messages"],
        ]
        assert upstream.requests[0].body == upload
    assert recorder.events == []


def test_many_calls_at_once(gateway: Gateway, recorder: Recorder) -> None:
    """Each gets its own answer under its own role."""

    def one(number: int) -> bytes:
        data = body(messages=[{"role": "user", "content": f"{number:03}"}], stream=bool(number % 2))
        return ask(f"{gateway.url}/v1/chat/completions", data, x_lightning_role=f"role-{number}")[2]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(one, range(96)))
    recorded = {call.meta.role: call for call in calls(recorder, 96)}
    for number, answer in enumerate(answers):
        content = f"{number:03}"[::-1]
        assert json.loads(recorded[f"role-{number}"].choices[0].message)["content"] == content
        assert number % 2 or json.loads(answer)["choices"][0]["message"]["content"] == content


def test_where_the_upstream_is(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host, an OpenAI base URL, or one whose version is spelt otherwise; each protocol has its own by default."""
    with Scripted(lambda c: c.answer(b"{}")) as upstream:
        for given, path in (
            ("", "/v1/models"),
            ("/v1", "/v1/models"),
            ("/api/v1/", "/api/v1/models"),
            ("/v1beta/openai", "/v1beta/openai/models"),
        ):
            ask(f"{start(upstream.url + given).url}/v1/models", method="GET")
            assert upstream.requests[-1].line.split()[1] == path
        monkeypatch.setenv("OPENAI_BASE_URL", f"{upstream.url}/openai/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{upstream.url}/anthropic")
        gateway = start()
        ask(f"{gateway.url}/v1/chat/completions", body())
        ask(f"{gateway.url}/v1/messages", body())
        lines = [each.line.split()[1] for each in upstream.requests[-2:]]
        assert lines == ["/openai/v1/chat/completions", "/anthropic/v1/messages"]


def test_wrong_settings(start: Start) -> None:
    """What cannot be served is said at the start."""
    with pytest.raises(SettingError, match=r"api\.openai\.com"):
        start("localhost:8000")
    taken = start()
    with pytest.raises(PortInUse, match="--port 0"):
        start(port=int(taken.url.rpartition(":")[2]))
