"""What the SDK costs per call: CPU on the calling thread and in the process, against the bare OpenAI client.

    python benchmarks/overhead.py [--json] [--pairs 100] [--calls 8]

Short blocks of bare and of recorded calls alternate in one process, against one server process that answers from memory
with 500 prompt ids, 200 completion ids and log-probs (24 KB of JSON). The hub is a real one, in its own process.

The calling thread's figure is the median of the paired differences of its CPU time, with the 95% interval of that
median; `noise` is what the same procedure says of two bare blocks. What all other threads of the process use (the
stream's, ZeroMQ's) is no difference of large numbers: bare blocks have no such threads, so it is read directly, until
the hub has everything on disk. `process` is the sum. Modes: sync, async with 64 in flight, and streaming with 200
chunks; each once as an observed call, and once as a call of a trainable role that is rewritten and redirected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai

import lightning_openai
import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.hub.client import HubClient
from lightning_sdk.hub.process import HubProcess
from lightning_sdk.stream import sink
from lightning_sdk.stream.stream import Stream
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope

PROMPT, COMPLETION = 500, 200
ASK: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "word " * 600}],
    "max_tokens": COMPLETION,
    "temperature": 1.0,
}


class Cost(NamedTuple):
    caller: float
    """Seconds of CPU of the thread that made the calls."""
    others: float
    """Seconds of CPU of all other threads."""

    @classmethod
    def now(cls) -> Cost:
        caller = time.thread_time()
        return cls(caller, time.process_time() - caller)

    def since(self, before: Cost) -> Cost:
        return Cost(self.caller - before.caller, self.others - before.others)


def reply(streamed: bool) -> bytes:
    """An HTTP answer as vLLM gives it with token ids and log-probs."""
    logprobs = [{"token": "word", "logprob": -0.123456, "bytes": [119, 111, 114, 100], "top_logprobs": []}] * COMPLETION
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    ids = list(range(1000, 1000 + PROMPT))
    if not streamed:
        message = {"role": "assistant", "content": "word " * COMPLETION}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop",
            "logprobs": {"content": logprobs},
            "token_ids": ids[:COMPLETION],
        }
        usage = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
        body = json.dumps(
            {**head, "object": "chat.completion", "choices": [choice], "prompt_token_ids": ids, "usage": usage}
        ).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    parts = []
    for index in range(COMPLETION):
        choice = {
            "index": 0,
            "delta": {"content": "word "},
            "finish_reason": None,
            "logprobs": {"content": logprobs[:1]},
            "token_ids": [ids[index]],
        }
        chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        parts.append(b"data: " + json.dumps(chunk if index else {**chunk, "prompt_token_ids": ids}).encode() + b"\n\n")
    body = b"".join(parts) + b"data: [DONE]\n\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def serve() -> None:
    """The server process: prints its port, then answers every request from memory."""
    whole, streamed = reply(False), reply(True)

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.buffer = transport, b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if found:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                if len(rest) >= length:
                    self.transport.write(streamed if b'"stream":true' in rest[:length] else whole)
                    self.buffer = rest[length:]

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


class Bench:
    """Blocks of calls with and without a stream, in one process whose patches stay in place.

    Patching again for each block would measure how the interpreter warms up to changed classes. What the patches alone
    cost, with nobody listening, is measured on its own (`caller_isolated_us`).

    The hub stands still while calls are made and takes everything in after them: where two cores are two threads of
    one, its work would slow the caller, and be counted as the caller's.
    """

    def __init__(self, url: str, hub: int, stream: Stream, pairs: int, calls: int) -> None:
        self.url, self.hub, self.stream, self.pairs, self.calls = url, hub, stream, pairs, calls
        self.client = openai.OpenAI(api_key="k", base_url=url)
        self.recorded = 0

    def scope(self, trained: bool) -> Scope:
        endpoint = Endpoint(self.url, "m", "k") if trained else None
        rollout = RolloutScope("0" * 32, bytes(15) + b"\1", endpoint, {"temperature": 1.0})
        return Scope(rollout=rollout, role="solver", trainable=True)

    def block(self, act: Callable[[], None], scope: Scope | None) -> float:
        """Microseconds of the calling thread per call, over one block."""
        sink.connect(self.stream if scope else None)
        self.recorded += self.calls if scope else 0
        with use_scope(scope or Scope()):
            before = time.thread_time()
            act()
            after = time.thread_time()
        sink.connect(None)
        return 1e6 * (after - before) / self.calls

    def drain(self) -> None:
        """Let the hub take what waits, and stand still again."""
        os.kill(self.hub, signal.SIGCONT)
        while self.stream._waiting():  # not flush(): its polling would be counted as the SDK's
            time.sleep(0.01)
        os.kill(self.hub, signal.SIGSTOP)

    def compare(self, act: Callable[[], None], trained: bool) -> dict[str, Any]:
        """What recording adds to a call, over pairs of blocks in alternating order."""
        scope = self.scope(trained)
        for each in (scope, None, scope, None):
            self.block(act, each)
        self.drain()
        differences, bare, noise = [], [], []
        before, recorded = Cost.now(), self.recorded
        for pair in range(self.pairs):
            first, second = (scope, None) if pair % 2 else (None, scope)
            costs = {first: self.block(act, first), second: self.block(act, second)}
            differences.append(costs[scope] - costs[None])
            bare.append(costs[None])
            noise.append(self.block(act, None) - costs[None])
            if self.recorded % 64 < self.calls:  # as often as the stream sends a full batch
                self.drain()
        self.drain()
        others = 1e6 * Cost.now().since(before).others / (self.recorded - recorded)
        os.kill(self.hub, signal.SIGCONT)
        caller = statistics.median(differences)
        return {
            "caller_cpu_us": round(caller, 1),
            "caller_95": [round(each, 1) for each in _interval(differences)],
            "others_cpu_us": round(others, 1),
            "total_cpu_us": round(caller + others, 1),
            "noise_us": round(statistics.median(noise), 1),
            "bare_us": round(statistics.median(bare), 1),
        }

    def sync(self) -> None:
        for _ in range(self.calls):
            self.client.chat.completions.create(**ASK)

    def streaming(self) -> None:
        for _ in range(self.calls):
            for _chunk in self.client.chat.completions.create(**ASK, stream=True):
                pass

    def in_flight(
        self, loop: asyncio.AbstractEventLoop, client: openai.AsyncOpenAI, at_once: int
    ) -> Callable[[], None]:
        async def one(gate: asyncio.Semaphore) -> None:
            async with gate:
                await client.chat.completions.create(**ASK)

        async def all_of_them() -> None:
            gate = asyncio.Semaphore(at_once)
            await asyncio.gather(*(one(gate) for _ in range(self.calls)))

        return lambda: loop.run_until_complete(all_of_them())


def _interval(values: list[float]) -> tuple[float, float]:
    """95% interval of the median of independent values, from their ranks (binomial, normal approximation)."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * count**0.5
    return ordered[max(0, int(count / 2 - reach))], ordered[min(count - 1, int(count / 2 + reach))]


class _Discard:
    """Takes events as the stream does on the caller's thread: appends, and forgets."""

    def __init__(self) -> None:
        self._queue: deque[Any] = deque(maxlen=64)

    def put(self, event: tuple[Any, ...], size: int) -> None:
        self._queue.append((event, size))


def seam_microseconds(listening: bool, trained: bool) -> float:
    """Microseconds that the seam adds to a call on its thread, around a stub of the client: the least of 7 repeats.

    A lower bound, steady where the paired figures are not: without a client around it the code stays in the caches.
    """
    options = openai._base_client.FinalRequestOptions.construct(
        method="post", url="/chat/completions", headers={}, extra_json=None, json_data=dict(ASK)
    )
    request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions", content=json.dumps(ASK).encode())
    response = httpx2.Response(200, request=request, content=reply(False).split(b"\r\n\r\n", 1)[1])

    def chain(build: Callable[..., Any], process: Callable[..., Any]) -> Callable[..., Any]:
        def client(self: Any, cast_to: Any, options: Any) -> Any:
            build(None, options)
            return process(None, response=response)

        return client

    plain = chain(lambda _self, _options: request, lambda _self, response: response)
    ours = lightning_openai.seam.requesting(
        chain(
            lightning_openai.seam.building(lambda _self, _options: request),
            lightning_openai.seam.processing(lambda _self, response: response),
        )
    )
    rollout = RolloutScope("0" * 32, bytes(16), Endpoint("http://127.0.0.1/v1", "m", "k") if trained else None)
    sink.connect(_Discard() if listening else None)
    with use_scope(Scope(rollout=rollout if listening else None, role="solver", trainable=True)):
        bare, wrapped = (
            min(timeit.repeat(lambda act=act: act(None, None, options), number=2000, repeat=7)) for act in (plain, ours)
        )
    sink.connect(None)
    return round((wrapped - bare) / 2000 * 1e6, 1)


def run(pairs: int, calls: int) -> dict[str, Any]:
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    loop = asyncio.new_event_loop()
    modes: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        hub = HubProcess(Path(folder))
        try:
            session.start()
            stream = Stream(hub.address, hub.key)
            client = openai.AsyncOpenAI(api_key="k", base_url=url)
            sync = Bench(url, hub.pid, stream, pairs, calls)
            many = Bench(url, hub.pid, stream, max(8, pairs // 8), 192)
            few = Bench(url, hub.pid, stream, max(8, pairs // 4), 2)
            for kind, trained in (("observed", False), ("trained", True)):
                modes[f"sync_{kind}"] = sync.compare(sync.sync, trained)
                modes[f"async64_{kind}"] = many.compare(many.in_flight(loop, client, 64), trained)
                modes[f"stream_{kind}"] = few.compare(few.streaming, trained)
            loop.run_until_complete(client.close())
            stream.flush(30)
            with HubClient(hub.address, hub.key) as ask:
                events = ask.ask("status")["events"]
            stream.close()
        finally:
            lightning.shutdown()
            hub.stop()
            server.terminate()
            server.wait()
    return {
        "benchmark": "overhead",
        "caller_cpu_us": modes["sync_trained"]["caller_cpu_us"],
        "total_cpu_us": modes["sync_trained"]["total_cpu_us"],
        "async_total_cpu_us": modes["async64_trained"]["total_cpu_us"],
        "stream_total_cpu_us": modes["stream_trained"]["total_cpu_us"],
        "caller_isolated_us": {
            "nobody listens": seam_microseconds(False, False),
            "observed": seam_microseconds(True, False),
            "trained": seam_microseconds(True, True),
        },
        "spans_lost": sync.recorded + many.recorded + few.recorded - events,
        "spans_recorded": events,
        "modes": modes,
        "pairs": pairs,
        "calls_per_block": calls,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"openai {openai.__version__}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--pairs", type=int, default=100, help="pairs of blocks (%(default)s)")
    parser.add_argument("--calls", type=int, default=8, help="calls a block (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    result = run(options.pairs, options.calls)
    if not options.json:
        columns = ("caller", "95% from", "to", "others", "process", "noise", "bare")
        print(f"{'CPU us a call':18}" + "".join(f"{column:>9}" for column in columns))
        for name, mode in result["modes"].items():
            caller, (low, high), *rest = mode.values()
            print(f"{name:18}" + "".join(f"{value:9.1f}" for value in (caller, low, high, *rest)))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
