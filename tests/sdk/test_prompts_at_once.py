"""Sixty-four rollouts of different candidates at once, in threads and on an event loop: none gets another one's text.

The real OpenAI client talks to an echo server. It is a test double for a paid API: it answers with the instruction that
it was given and with what the user said, once all sixty-four are there.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

import lightning_sdk as lightning
from lightning_sdk.markers.reward import reward_functions
from lightning_sdk.rollouts.attempt import aexecute, execute
from lightning_sdk.stream import notices
from lightning_sdk.stream.wire import Event
from lightning_sdk.trace.call import Status
from tests.sdk.candidates import OLD, assignment
from tests.sdk.recorder import Recorder

ROLLOUTS = 64
MARKED = "Answer with the number {number} and nothing else."
REWARDS = reward_functions([lambda task, answer: float(answer == expected_answers(task["number"]))])


def expected_answers(number: int) -> list[str]:
    """What a rollout's two turns are answered: its own instruction and question, and its own marked text."""
    return [f"Writer {number}. | Turn 0 of {number}", f"Writer {number}. | Say {number}, candidate {number}."]


def message(number: int) -> dict[str, Any]:
    candidate = {
        "id": f"c{number}",
        "texts": {OLD: f"Writer {number}.", MARKED: f"Say {{number}}, candidate {number}."},
        "names": {MARKED: "writer.question"},
    }
    return assignment(candidate, id=f"{number:032x}", key=number.to_bytes(16), task={"number": number}, timeout=60.0)


class Echo:
    """The test double."""

    def __init__(self) -> None:
        echo, self.all_there = self, threading.Barrier(ROLLOUTS)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                echo.all_there.wait(60)
                text = " | ".join(each["content"] for each in body["messages"])
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                raw = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = ROLLOUTS
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    lightning.init()
    echo = Echo()
    yield echo
    echo.close()


def turns(task: dict[str, Any]) -> Iterator[list[dict[str, str]]]:
    """The messages of each turn: a fixed instruction, then a text that is marked inside the rollout."""
    system = {"role": "system", "content": OLD}
    yield [system, {"role": "user", "content": f"Turn 0 of {task['number']}"}]
    text = lightning.prompt("writer.question", default=MARKED).format(number=task["number"])
    yield [system, {"role": "user", "content": text}]


def in_threads(echo: Echo) -> list[Status]:
    client = openai.OpenAI(base_url=echo.url, api_key="k", max_retries=0)

    def agent(task: dict[str, Any]) -> list[str]:
        ask = client.chat.completions.create
        return [str(ask(model="m", messages=each).choices[0].message.content) for each in turns(task)]  # type: ignore[arg-type]

    with client, ThreadPoolExecutor(ROLLOUTS) as pool:
        return list(pool.map(lambda number: execute(agent, REWARDS, message(number)), range(ROLLOUTS)))


def in_tasks(echo: Echo) -> list[Status]:
    async def agent(task: dict[str, Any]) -> list[str]:
        ask = client.chat.completions.create
        return [str((await ask(model="m", messages=each)).choices[0].message.content) for each in turns(task)]  # type: ignore[arg-type]

    async def run() -> list[Status]:
        nonlocal client
        client = openai.AsyncOpenAI(base_url=echo.url, api_key="k", max_retries=0)
        async with client:
            return list(
                await asyncio.gather(*(aexecute(agent, REWARDS, message(n), lambda: True) for n in range(ROLLOUTS)))
            )

    client: openai.AsyncOpenAI
    return asyncio.run(run())


@pytest.mark.parametrize("run", [in_threads, in_tasks])
def test_candidates_never_mix(echo: Echo, recorder: Recorder, run: Callable[[Echo], list[Status]]) -> None:
    """Each answer, each request and each record is of the rollout's own candidate."""
    assert run(echo) == [Status.OK] * ROLLOUTS
    assert [event[2] for event in recorder.of(Event.REWARD)] == [1.0] * ROLLOUTS
    calls = recorder.of(Event.REPLY)
    assert len(calls) == 2 * ROLLOUTS
    for _, key, meta, request, _ in calls:
        number = int.from_bytes(key)
        assert meta[-1] == f"c{number}"
        assert json.loads(request)["messages"][0]["content"] == f"Writer {number}."
    assert notices.UNSEEN not in {span.name for span in recorder.spans}
