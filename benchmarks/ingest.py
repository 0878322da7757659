"""Spans per second from a client to the durable hub: calls that are packed already, and raw replies that it decodes.

    python benchmarks/ingest.py [--seconds 60] [--tcp] [--json]

Each call has 500 prompt and 200 completion ids with log-probs: 7 KB packed, or a reply of 29 KB as JSON. The client is
the SDK's own stream in this process; the hub is its own process with its log on this disk, synced before each
acknowledgement. They meet as on one machine, at a socket in a folder, or with --tcp as from elsewhere, at an encrypted
port. What it is counted by is what can be read from the log afterwards. Before each kind, the baseline sends
the same bytes over the same kind of socket to a process that throws them away. Packed spans wear down a disk: at 50,000
a second they are 350 MB/s, so the hub is told to keep 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from lightning_hub.decoding.replies import decode
from lightning_hub.storage.log import Log
from lightning_sdk.hub.client import HubClient
from lightning_sdk.stream import wire
from lightning_sdk.stream.stream import Stream
from lightning_sdk.stream.wire import NO_ROLLOUT, Event, EventBatch
from lightning_sdk.trace.call import CallMeta

PROMPT, COMPLETION, DISTINCT = 500, 200, 256
_RETAIN = 2 * 2**30
_SINK = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.set(zmq.RCVHWM, 256)
print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
while True:
    peer, kind, *_ = router.recv_multipart()
    if kind == b"end":
        router.send_multipart([peer, b"done"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each kind is sent (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the hub keeps its log (default: a temporary folder)")
    parser.add_argument("--tcp", action="store_true", help="by TCP, encrypted")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.seconds < 3:
        parser.error("--seconds has to be 3 at least: the first second fills the client's window")
    raw = [raw_event(number) for number in range(DISTINCT)]
    kinds = {"packed": [packed_event(event) for event in raw], "raw": raw}
    result: dict[str, Any] = {"machine": machine()}
    for name, events in kinds.items():
        bare = baseline(events, min(5.0, options.seconds))
        result[name] = {
            **measure(events, options.seconds, options.folder, options.tcp),
            "baseline_spans_per_second": bare,
        }
    if options.json:
        print(json.dumps(result))
        return
    for name in kinds:
        print(name)
        for key, value in result[name].items():
            print(f"  {key:28}{value:>14,.3f}" if isinstance(value, float) else f"  {key:28}{value:>14,}")


def machine() -> dict[str, Any]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def raw_event(number: int) -> tuple[Any, ...]:
    """A REPLY event as the seam sends it, with the reply of a vLLM server (about 29 KB)."""
    chance = random.Random(number)
    words = ["the", "sum", "of", "three", "numbers", "is", "therefore", "carried", "and", "result", "follows", "on"]
    text = [chance.choice(words) + " " for _ in range(COMPLETION)]
    reply = {
        "id": f"chatcmpl-{number:032x}",
        "object": "chat.completion",
        "created": 1,
        "model": "spark",
        "prompt_token_ids": [chance.randrange(32_000) for _ in range(PROMPT)],
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "".join(text)},
                "token_ids": [chance.randrange(32_000) for _ in range(COMPLETION)],
                "logprobs": {
                    "content": [
                        {
                            "token": word,
                            "logprob": math.log(chance.random() + 1e-9),
                            "bytes": list(word.encode()),
                            "top_logprobs": [],
                        }
                        for word in text
                    ]
                },
            }
        ],
        "usage": {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION},
    }
    content = "".join(chance.choice(words) + " " for _ in range(PROMPT))
    request = {"model": "spark", "messages": [{"role": "user", "content": content}]}
    meta = CallMeta(f"{number:016x}", "", "solver", True, 1, 2, "ok", "", 200, False, "/v1/chat/completions", "openai")
    return (int(Event.REPLY), NO_ROLLOUT, list(meta), json.dumps(request).encode(), json.dumps(reply).encode())


def packed_event(event: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same call as a CALL event (about 8 KB)."""
    call = decode(CallMeta(*event[2]), event[3], event[4])
    assert not call.problem, call.problem
    return (int(Event.CALL), NO_ROLLOUT, call.pack())


def measure(events: list[tuple[Any, ...]], seconds: float, folder: Path | None, tcp: bool) -> dict[str, Any]:
    """Send `events` over and over for `seconds`, wait until all is durable, stop the hub, count what its log has."""
    run = Path(tempfile.mkdtemp(prefix="ingest-", dir=folder))
    hub = start_hub(run, tcp)
    try:
        size = sum(len(wire.pack(event)) for event in events) // len(events)
        stream = Stream(hub["address"], "bench", window=64 * 2**20)
        warm_up(stream, events, size)
        first = Sample.now(stream, hub["pid"])
        samples = [first]
        while samples[-1].time - first.time < seconds:
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                send(stream, events, size)
            samples.append(Sample.now(stream, hub["pid"]))
        if not stream.flush(60.0):
            raise SystemExit(f"not everything arrived: {stream.status()}")
        last = Sample.now(stream, hub["pid"])
        put, told = stream.status().put, status_after_deleting(hub["address"])
        stream.close()
    finally:
        stop_hub(hub)
        found = on_disk(run)
        shutil.rmtree(run)
    counted = found + told["dropped_events"]
    took, sent = last.time - first.time, last.durable - first.durable
    return {
        "spans_per_second": sent / took,
        "slowest_5_seconds": slowest(samples),
        "seconds": took,
        "spans": sent,
        "bytes_per_span": size,
        "mb_per_second": sent * size / took / 1e6,
        "spans_lost": max(0, put - counted),
        "duplicates": max(0, counted - put),
        "hub_cpu_us_per_span": (last.hub - first.hub) / sent * 1e6,
        "client_cpu_us_per_span": (last.client - first.client) / sent * 1e6,
        "agent_memory_kb_per_call": slope([(each.durable, each.rss / 1000) for each in samples[2:]]),
        "cores_used_by_others": (last.others - first.others) / took,
    }


class Sample(NamedTuple):
    """Counters at one moment; CPU in seconds."""

    time: float
    durable: int
    """Events that the hub has acknowledged."""
    client: float
    hub: float
    others: float
    """The processor time of all other processes of the machine."""
    rss: float
    """Bytes of this process."""

    @classmethod
    def now(cls, stream: Stream, hub: int) -> Sample:
        client, server, machine = time.process_time(), cpu_seconds(f"/proc/{hub}/stat"), cpu_seconds("/proc/stat")
        acknowledged, others = stream.status().acknowledged, machine - server - client
        return cls(time.monotonic(), acknowledged, client, server, others, rss())


def slowest(samples: list[Sample]) -> float:
    """Events per second in the slowest span of about five seconds, or in all if there are fewer."""
    step = min(10, len(samples) - 1)
    return min((b.durable - a.durable) / (b.time - a.time) for a, b in zip(samples, samples[step:], strict=False))


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of the least-squares line through the points."""
    x = sum(point[0] for point in points) / len(points)
    y = sum(point[1] for point in points) / len(points)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def status_after_deleting(address: str) -> dict[str, Any]:
    """What the hub says of itself once it has deleted what its limit asks for."""
    time.sleep(1.0)
    with HubClient(address, "bench") as client:
        told: dict[str, Any] = client.ask("status")
        return told


def on_disk(run: Path) -> int:
    """Events that can be read from the log of a hub that has stopped."""
    log = Log(run / "spans")
    try:
        return sum(batch.count for _, batch in log.recover(0))
    finally:
        log.close()


def warm_up(stream: Stream, events: list[tuple[Any, ...]], size: int) -> None:
    """Fill the window once, so that the memory it takes does not count as growth."""
    for _ in range(max(1, 64 * 2**20 // (size * len(events)))):
        send(stream, events, size)
    stream.flush(60.0)


def send(stream: Stream, events: list[tuple[Any, ...]], size: int) -> None:
    """One round; waits by itself while the window is full, as nothing may be dropped."""
    while stream.status().waiting * size > 48 * 2**20:
        time.sleep(0.0005)
    for event in events:
        stream.put(event, size)


def baseline(events: list[tuple[Any, ...]], seconds: float) -> float:
    """Spans per second of prebuilt batches over the same kind of socket into a process that throws them away."""
    body = b"".join(wire.pack(event) for event in events[:64])
    batch = EventBatch(os.urandom(16), 1, 64, body)
    sink = subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE)
    assert sink.stdout is not None
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.set(zmq.SNDHWM, 64)
    dealer.connect(f"tcp://127.0.0.1:{int(sink.stdout.readline())}")
    count, header = 0, batch.header()
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        dealer.send_multipart([wire.BATCH, header, body])
        count += batch.count
    dealer.send(b"end")
    dealer.recv()
    took = time.monotonic() - began
    dealer.close(linger=0)
    sink.kill()
    sink.wait()
    sink.stdout.close()
    return count / took


def start_hub(run: Path, tcp: bool) -> dict[str, Any]:
    bind = "tcp://127.0.0.1:0" if tcp else f"ipc://{tempfile.mkdtemp(prefix='lightning-')}/hub"
    with (run / "hub.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_hub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None
    assert process.stdout is not None
    config = {"run": str(run), "key": "bench", "bind": bind, "lifeline": True, "retain_bytes": _RETAIN}
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    return {**json.loads(process.stdout.readline()), "process": process}


def stop_hub(hub: dict[str, Any]) -> None:
    hub["process"].stdin.close()
    hub["process"].wait(30)
    hub["process"].stdout.close()


def cpu_seconds(path: str) -> float:
    """User and system time of a process, or of the whole machine; NaN where there is no /proc."""
    try:
        fields = Path(path).read_text().partition("\n")[0].rpartition(")")[2].split()
    except OSError:
        return math.nan
    # Of the machine: user, nice, system, idle, iowait, irq, softirq.
    used = fields[1:4] + fields[6:8] if fields[0] == "cpu" else fields[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def rss() -> float:
    """Resident bytes of this process; NaN where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.nan


if __name__ == "__main__":
    main()
