"""Tokens per second of a vLLM server asked through our front, beside the same server asked directly.

    .venvs/verl/bin/python benchmarks/vllm_front.py [--model spark] [--requests 256] [--concurrency 64] [--tokens 128]
                                                    [--pairs 5] [--replicas 1] [--data FOLDER] [--output FILE]

On the GPUs of this machine, or on its CPU. The same requests, as training sends them (sampled, with log-probs and token
ids), from one client process: to the servers' own addresses in turn, and to the front's, in pairs of which every second
one begins with the front. The ratio is the median over the pairs. They are words that never end before `--tokens`, or,
with `--data`, the sums of `arithmetic.py`, each eight times, as a step of its training asks them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import arithmetic
import orjson
import torch
from aiohttp import web

from lightning_process.source import locate
from lightning_sdk.settings import Settings
from lightning_sdk.system.addresses import BACKLOG
from lightning_vllm.available import installed_version
from lightning_vllm.command import KEEP_ALIVE_SECONDS
from lightning_vllm.fleet import Fleet
from lightning_vllm.front import Front, ServerAddress
from lightning_vllm.gpu_layout import place_servers, visible_gpus
from lightning_vllm.launch import launcher
from lightning_vllm.model_reader import read_model_info

KEY = "front"


def main() -> None:
    arguments = parse()
    if arguments.ask:
        for line in sys.stdin:
            way = [ServerAddress(*each) for each in json.loads(line)]
            print(json.dumps(asyncio.run(ask(way, arguments))), flush=True)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(arguments, Path(folder)) as (fleet, address),
        client() as measure,
    ):
        direct = fleet.upstreams()
        for way in (direct, [address]):
            measure(way)  # the first does not count: caches, connections, compilation
        pairs = []
        for number in range(arguments.pairs):
            if number % 2:
                front, alone = measure([address]), measure(direct)
            else:
                alone, front = measure(direct), measure([address])
            pairs.append((alone, front))
            print(f"tokens/s: direct {alone:.0f}, front {front:.0f}", flush=True)
    report(arguments, pairs)


@contextmanager
def servers(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[Fleet, ServerAddress]]:
    name = Path(arguments.model).name
    settings = Settings.from_dict(
        {
            "engine": "vllm",
            "model": arguments.model,
            "serving.replicas": arguments.replicas,
            "rollouts.concurrency": arguments.concurrency,
            "serving.max_length": arguments.length,
            **dict(each.split("=", 1) for each in arguments.set),
        }
    )
    card, front = read_model_info(locate(arguments.model)), Front(KEY, name, keep_alive=KEEP_ALIVE_SECONDS / 2)
    cores = len(os.sched_getaffinity(0))
    where = place_servers(settings, visible_gpus(torch.cuda.device_count()), cores, small=card.parameters < 30_000_000)
    fleet = Fleet(front, where, folder, launcher(settings, card, name), asynchronous=False)
    try:
        fleet.wait()
        with listening(front.app()) as url:
            yield fleet, ServerAddress(url, KEY)
    finally:
        fleet.close()


@contextmanager
def listening(app: web.Application) -> Iterator[str]:
    """The front in a thread of this process, as in the backend's."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    runner, stop = web.AppRunner(app, access_log=None), asyncio.Event()

    async def run() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG).start()
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def client() -> Iterator[Callable[[Sequence[ServerAddress]], float]]:
    """What measures tokens per second of servers, in a separate process: this program with `--ask`."""
    with subprocess.Popen(
        [sys.executable, __file__, "--ask", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked is not None and answered is not None

        def measure(way: Sequence[ServerAddress]) -> float:
            asked.write(json.dumps(way) + "\n")
            asked.flush()
            return float(json.loads(answered.readline()))

        yield measure


async def ask(way: Sequence[ServerAddress], arguments: argparse.Namespace) -> float:
    turns, tokens = iter(range(arguments.requests)), 0
    sums = arithmetic.data("sums", arguments.data, 200)[0] if arguments.data else []
    connector = aiohttp.TCPConnector(limit=0)
    sampling = {
        "logprobs": True,
        "return_token_ids": True,
        "temperature": 1.0,
        "max_tokens": arguments.tokens,
        "ignore_eos": not sums,
    }

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for number in turns:
            upstream = way[number % len(way)]
            headers = {"Authorization": f"Bearer {upstream.key}", "x-lightning-rollout": str(number)}
            async with session.post(f"{upstream.url}/chat/completions", json=body(number), headers=headers) as reply:
                tokens += orjson.loads(await reply.read())["usage"]["completion_tokens"]

    def body(number: int) -> dict[str, Any]:
        words = " ".join(str((number * 7919 + place * 104729) % 1000) for place in range(20))
        if sums:
            words = arithmetic.question_of(sums[number // 8 % len(sums)])
        return {"model": Path(arguments.model).name, "messages": [{"role": "user", "content": words}], **sampling}

    async with aiohttp.ClientSession(connector=connector) as session:
        began = time.perf_counter()
        await asyncio.gather(*(one_after_another(session) for _ in range(arguments.concurrency)))
        return tokens / (time.perf_counter() - began)


def report(arguments: argparse.Namespace, pairs: Sequence[tuple[float, float]]) -> None:
    ratios = [front / direct for direct, front in pairs]
    result = {
        "benchmark": "vllm_front",
        "vllm": installed_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "model": Path(arguments.model).name,
        **{name: getattr(arguments, name) for name in ("requests", "concurrency", "tokens", "replicas")},
        "direct": round(statistics.median(direct for direct, _ in pairs)),
        "front": round(statistics.median(front for _, front in pairs)),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 3),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result) + "\n", "utf-8")
    print("\n".join(f"{name:12} {value}" for name, value in result.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--length", type=int, default=512, help="prompt and completion together")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of tasks, as in arithmetic.py")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file")
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
