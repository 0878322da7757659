"""Events per second from a client to the durable hub: calls that are packed already, and raw replies it decodes.

    python benchmarks/ingest.py [--seconds 60] [--json]

Each call has 500 prompt and 200 completion ids with log-probs. The client is the SDK's own stream in this process; the
hub is its own process with its log on this disk, synced before each acknowledgement. The baseline sends the same
batches to a process that throws them away. Packed events wear down a disk: at 50,000 a second they are 350 MB/s, so
the hub is told to keep 2 GiB.
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
from typing import Any

import zmq

from lightning_hub.decode import decode
from lightning_sdk import wire
from lightning_sdk.call import CallMeta
from lightning_sdk.hub import HubClient
from lightning_sdk.stream import Stream
from lightning_sdk.wire import NO_ROLLOUT, Batch, Event

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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    raw = [raw_event(number) for number in range(DISTINCT)]
    packed = [packed_event(event) for event in raw]
    result = {
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "baseline": baseline(packed, min(5.0, options.seconds)),
        "packed": measure(packed, options.seconds, options.folder),
        "raw": measure(raw, options.seconds, options.folder),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{'':10}{'events/s':>10}{'MB/s':>8}{'lost':>6}{'twice':>7}{'hub CPU us':>12}{'client CPU us':>15}")
    print(f"{'baseline':10}{result['baseline']['per_second']:>10,.0f}{result['baseline']['mb_per_second']:>8.0f}")
    for name in ("packed", "raw"):
        r = result[name]
        print(
            f"{name:10}{r['per_second']:>10,.0f}{r['mb_per_second']:>8.0f}{r['lost']:>6}{r['twice']:>7}"
            f"{r['hub_cpu_us']:>12.1f}{r['client_cpu_us']:>15.1f}"
        )


def raw_event(number: int) -> tuple[Any, ...]:
    """A REPLY event as the seam sends it, with the reply of a vLLM server (about 29 KB)."""
    chance = random.Random(number)
    words = ["the", "sum", "of", "three", "numbers", "is", "then", "we", "carry", "one", "and", "go", "on"]
    text = [chance.choice(words) + " " for _ in range(COMPLETION)]
    reply = {
        "id": f"chatcmpl-{number:032x}", "object": "chat.completion", "created": 1, "model": "spark",
        "prompt_token_ids": [chance.randrange(32_000) for _ in range(PROMPT)],
        "choices": [{
            "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(text)},
            "token_ids": [chance.randrange(32_000) for _ in range(COMPLETION)],
            "logprobs": {"content": [
                {"token": word, "logprob": math.log(chance.random() + 1e-9), "bytes": list(word.encode()),
                 "top_logprobs": []} for word in text
            ]},
        }],
        "usage": {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION},
    }  # fmt: skip
    content = "".join(chance.choice(words) + " " for _ in range(PROMPT))
    request = {"model": "spark", "messages": [{"role": "user", "content": content}]}
    meta = CallMeta(f"{number:016x}", "", "solver", True, 1, 2, "ok", "", 200, False, "/v1/chat/completions", "openai")
    return (int(Event.REPLY), NO_ROLLOUT, list(meta), json.dumps(request).encode(), json.dumps(reply).encode())


def packed_event(event: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same call as a CALL event (about 8 KB)."""
    call = decode(CallMeta(*event[2]), event[3], event[4])
    assert not call.problem, call.problem
    return (int(Event.CALL), NO_ROLLOUT, call.pack())


def measure(events: list[tuple[Any, ...]], seconds: float, folder: Path | None) -> dict[str, Any]:
    """Send `events` over and over for `seconds`, wait until all is durable, and ask the hub what it has."""
    run = Path(tempfile.mkdtemp(prefix="ingest-", dir=folder))
    hub = start_hub(run)
    try:
        size = sum(len(wire.pack(event)) for event in events) // len(events)
        stream = Stream(hub["address"], "bench", window=64 * 2**20)
        warm_up(stream, events, size)
        before = {"cpu": time.process_time(), "hub": cpu_seconds(hub["pid"]), "rss": rss(), "put": stream.status().put}
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            send(stream, events, size)
        if not stream.flush(60.0):
            raise SystemExit(f"not everything arrived: {stream.status()}")
        took = time.monotonic() - began
        sent = stream.status().put - before["put"]
        with HubClient(hub["address"], "bench") as client:
            told = client.ask("status")
        result = {
            "events": sent, "seconds": took, "per_second": sent / took, "bytes_each": size,
            "mb_per_second": sent * size / took / 1e6,
            "lost": stream.status().put - told["events"], "twice": told["events"] - stream.status().acknowledged,
            "dropped_by_client": stream.status().dropped, "resent": stream.status().resent,
            "hub_cpu_us": (cpu_seconds(hub["pid"]) - before["hub"]) / sent * 1e6,
            "client_cpu_us": (time.process_time() - before["cpu"]) / sent * 1e6,
            "client_rss_bytes_per_event": (rss() - before["rss"]) / sent,
            "log_bytes": told["bytes"], "events_deleted_by_limit": told["dropped_events"],
        }  # fmt: skip
        stream.close()
        return result
    finally:
        stop_hub(hub)
        shutil.rmtree(run)


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


def baseline(events: list[tuple[Any, ...]], seconds: float) -> dict[str, Any]:
    """The same bytes over the same kind of socket, prebuilt, into a process that throws them away."""
    body = b"".join(wire.pack(event) for event in events[:64])
    batch = Batch(os.urandom(16), 1, 64, body)
    sink = subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE)
    assert sink.stdout is not None
    dealer = zmq.Context.instance().socket(zmq.DEALER)
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
    return {"per_second": count / took, "mb_per_second": count * len(body) / 64 / took / 1e6}


def start_hub(run: Path) -> dict[str, Any]:
    with (run / "hub.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_hub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None
    assert process.stdout is not None
    config = {"run": str(run), "key": "bench", "lifeline": True, "retain_bytes": _RETAIN}
    process.stdin.write(json.dumps(config).encode() + b"\n")
    process.stdin.flush()
    return {**json.loads(process.stdout.readline()), "process": process}


def stop_hub(hub: dict[str, Any]) -> None:
    hub["process"].stdin.close()
    hub["process"].wait(30)
    hub["process"].stdout.close()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process; NaN where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss() -> float:
    """Resident bytes of this process; NaN where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return math.nan


if __name__ == "__main__":
    main()
