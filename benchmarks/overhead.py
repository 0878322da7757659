"""What the SDK costs per call: CPU on the calling thread and in the process, against the bare OpenAI client.

    python benchmarks/overhead.py [--json] [--pairs 150] [--calls 20]

Blocks of bare and of recorded calls alternate in one process, against one server process that answers from memory with
500 prompt ids, 200 completion ids and log-probs (about 29 KB of JSON). A recorded block is over when the hub, a real
one in its own process, has everything on disk. Figures are medians of paired differences; `noise` is what the same
procedure says of two bare blocks. Modes: sync, async with 64 in flight, and streaming with 200 chunks; each once as an
observed call, and once as a call of a trainable role that is rewritten and redirected.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import openai

import lightning_sdk as lightning
from lightning_sdk import session
from lightning_sdk.hub import HubClient, HubProcess
from lightning_sdk.scope import Endpoint, RolloutScope, Scope, entered

PROMPT, COMPLETION = 500, 200
ASK: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "word " * 600}],
    "max_tokens": COMPLETION,
    "temperature": 1.0,
}


class Cost(NamedTuple):
    caller: float
    """Microseconds of CPU a call on the thread that made it."""
    total: float
    """Microseconds of CPU a call in the whole process."""


def reply(streamed: bool) -> bytes:
    """An HTTP answer as vLLM gives it with token ids and log-probs."""
    logprobs = [{"token": "word", "logprob": -0.123456, "bytes": [119, 111, 114, 100], "top_logprobs": []}] * COMPLETION
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    ids = list(range(1000, 1000 + PROMPT))
    if not streamed:
        message = {"role": "assistant", "content": "word " * COMPLETION}
        choice = {"index": 0, "message": message, "finish_reason": "stop",
                  "logprobs": {"content": logprobs}, "token_ids": ids[:COMPLETION]}  # fmt: skip
        usage = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
        body = json.dumps({**head, "object": "chat.completion", "choices": [choice], "prompt_token_ids": ids,
                           "usage": usage}).encode()  # fmt: skip
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    parts = []
    for index in range(COMPLETION):
        choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None,
                  "logprobs": {"content": logprobs[:1]}, "token_ids": [ids[index]]}  # fmt: skip
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
    def __init__(self, url: str, hub: HubProcess, pairs: int, calls: int) -> None:
        self.url, self.hub, self.pairs, self.calls = url, hub, pairs, calls
        self.client = openai.OpenAI(api_key="k", base_url=url)
        self.recorded = 0
        self.lost = 0

    def scope(self, trained: bool) -> Scope:
        endpoint = Endpoint(self.url, "m", "k") if trained else None
        rollout = RolloutScope("0" * 32, bytes(15) + b"\1", endpoint, {"temperature": 1.0})
        return Scope(rollout=rollout, role="solver", trainable=True)

    def block(self, act: Callable[[], None], recorded: bool, trained: bool) -> Cost:
        """Cost of one block of `self.calls` calls; a recorded one ends when the hub has it."""
        stream = None
        if recorded:
            running = session.start()
            running.attach(self.hub.address, self.hub.key, keep=False)
            stream = running.stream
            assert stream is not None
            stream.flush(10)
        total, caller = time.process_time(), time.thread_time()
        with entered(self.scope(trained)):
            act()
        caller = time.thread_time() - caller
        if stream is not None:
            while stream._waiting():  # not flush(): its polling is the benchmark's cost, not the SDK's
                time.sleep(0.02)
        total = time.process_time() - total
        if stream is not None:
            status = stream.status()
            self.recorded += status.acknowledged
            self.lost += self.calls - status.acknowledged
            lightning.shutdown()
        return Cost(1e6 * caller / self.calls, 1e6 * total / self.calls)

    def compare(self, act: Callable[[], None], trained: bool) -> dict[str, float]:
        """Medians over pairs of blocks, in alternating order."""
        bare, ours, noise = [], [], []
        for pair in range(self.pairs):
            order = [True, False] if pair % 2 else [False, True]
            costs = {recorded: self.block(act, recorded, trained) for recorded in order}
            again = self.block(act, False, trained)
            bare.append(costs[False])
            ours.append(Cost(costs[True].caller - costs[False].caller, costs[True].total - costs[False].total))
            noise.append(again.total - costs[False].total)
        middle = statistics.median
        return {
            "caller_cpu_us": round(middle(cost.caller for cost in ours), 1),
            "total_cpu_us": round(middle(cost.total for cost in ours), 1),
            "bare_us": round(middle(cost.total for cost in bare), 1),
            "noise_us": round(middle(noise), 1),
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


def run(pairs: int, calls: int) -> dict[str, Any]:
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        hub = HubProcess(Path(folder))
        try:
            bench = Bench(url, hub, pairs, calls)
            client = openai.AsyncOpenAI(api_key="k", base_url=url)
            many = Bench(url, hub, max(10, pairs // 4), 128)
            modes: dict[str, dict[str, float]] = {}
            for trained in (False, True):
                kind = "trained" if trained else "observed"
                modes[f"sync_{kind}"] = bench.compare(bench.sync, trained)
                modes[f"async64_{kind}"] = many.compare(many.in_flight(loop, client, 64), trained)
                few = Bench(url, hub, max(5, pairs // 10), calls)
                modes[f"stream_{kind}"] = few.compare(few.streaming, trained)
                bench.lost += few.lost
            loop.run_until_complete(client.close())
            with HubClient(hub.address, hub.key) as ask:
                events = ask.ask("status")["events"]
        finally:
            hub.stop()
            server.terminate()
            server.wait()
    return {
        "benchmark": "overhead",
        "caller_cpu_us": modes["sync_trained"]["caller_cpu_us"],
        "total_cpu_us": modes["sync_trained"]["total_cpu_us"],
        "async_total_cpu_us": modes["async64_trained"]["total_cpu_us"],
        "stream_total_cpu_us": modes["stream_trained"]["total_cpu_us"],
        "spans_lost": bench.lost + many.lost,
        "spans_recorded": events,
        "modes": modes,
        "pairs": pairs,
        "calls_per_block": calls,
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
        f"openai {openai.__version__}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--pairs", type=int, default=150, help="pairs of blocks (%(default)s)")
    parser.add_argument("--calls", type=int, default=20, help="calls a block (%(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    result = run(options.pairs, options.calls)
    if not options.json:
        print(f"{'CPU us a call, medians':24}{'caller':>9}{'process':>9}{'bare':>9}{'noise':>9}")
        for name, mode in result["modes"].items():
            print(f"{name:24}" + "".join(f"{value:9.1f}" for value in mode.values()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
