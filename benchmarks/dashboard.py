"""The dashboard: how long each view takes of a run with 100,000 rollouts and 1,000,000 calls, and what the hub loses.

    python benchmarks/dashboard.py [--rollouts 100000] [--seconds 30] [--json]

First a run of that size is made up on this disk (0.6 GB) and every view asked for over HTTP, as the page does it: the
first time after the server has read the rollouts, the median and the slowest of 20 times, and the processor time of
one of them, which a busy machine does not change. Then a hub goes on in
that folder, and calls are sent to it as fast as it takes them: in turns without a dashboard, and with one in which
three pages are open that look at the rollouts, the run and the machinery whenever something changes. The share is what
is left of the speed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ingest import cpu_seconds, machine, packed_event, raw_event, send, start_hub, stop_hub, warm_up
from made_runs import BEGAN, MadeRollout, MadeRun, made_call, pack_events

from lightning_sdk.stream import wire
from lightning_sdk.stream.stream import Stream

CALLS, GROUP, GROUPS_PER_STEP, ASKED = 10, 8, 64, 20
_WRITTEN_AT_ONCE = 2000
_LOOK_SECONDS = 2.0
_TURNS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=100_000, help="in the made-up run (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long calls are sent (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lightning-dashboard-") as folder:
        run = Path(folder) / "large"
        make_run(run, options.rollouts)
        result = {
            "machine": machine(),
            "rollouts": options.rollouts,
            "calls": options.rollouts * CALLS,
            "views_ms": measure_views(run),
            "ingest": measure_ingest(run, options.seconds),
        }
    print(json.dumps(result) if options.json else describe(result))


def make_run(folder: Path, rollouts: int) -> None:
    """Steps of 64 groups of 8, each rollout with ten calls, some failed."""
    run, chance = MadeRun(folder), random.Random(0)
    variants = [pack_events(_calls(number)) for number in range(32)]
    made: list[MadeRollout] = []
    for number in range(rollouts):
        group, step = number // GROUP, number // (GROUP * GROUPS_PER_STEP) + 1
        failed = chance.random() < 0.01
        reward = chance.random()
        made.append(
            MadeRollout(
                group=f"{step}-{group % GROUPS_PER_STEP}",
                task={"question": f"Question {group}: " + "what is the sum of these numbers? " * 6, "n": group},
                task_id=group,
                status="agent_error" if failed else "ok",
                error="ValueError: no answer" if failed else "",
                answer=f"the answer is {number} " * 4,
                started=BEGAN + number * 0.05,
                seconds=chance.random() * 3,
                rewards=() if failed else [("solver", "right", reward, f"{reward:.2f} of it is right")],
                events=variants[number % len(variants)],
            )
        )
        if len(made) == _WRITTEN_AT_ONCE or number == rollouts - 1:
            run.add(made)
            made = []
    steps = rollouts // (GROUP * GROUPS_PER_STEP)
    run.steps({"step": step + 1, "loss": 0.1, "rows/solver": 512.0} for step in range(steps))
    run.close()


def _calls(variant: int) -> list[Any]:
    messages = [{"role": "user", "content": f"What is {variant} + 3?"}]
    return [made_call(number, messages, f"{variant + 3}") for number in range(CALLS)]


class Dashboard:
    """A dashboard in its own process."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lightning_dashboard"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"places": [str(folder)]}) + "\n")
        self._process.stdin.flush()
        url = json.loads(self._process.stdout.readline())["url"]
        self._base, _, self._token = url.partition("/#/?token=")

    def ask(self, view: str, **params: Any) -> tuple[float, Any]:
        """Milliseconds, and the answer."""
        address = f"{self._base}/api/{view}?{urlencode(params, doseq=True)}"
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {self._token}"})
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as reply:
            body = reply.read()
        return 1000 * (time.perf_counter() - began), json.loads(body)

    def cpu_ms(self) -> float:
        """Processor time so far."""
        return 1000 * cpu_seconds(f"/proc/{self._process.pid}/stat")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def measure_views(run: Path) -> dict[str, dict[str, float]]:
    """View -> milliseconds of the first answer, the median and the slowest of the next ones."""
    dashboard = Dashboard(run)
    try:
        name = run.name
        before = dashboard.cpu_ms()
        first, rows = dashboard.ask("rollouts", run=name, limit=100)
        id_ = rows["rows"][0]["id"]
        _, opened = dashboard.ask("rollout", run=name, rollout=id_)
        call = next(each["id"] for each in opened["spans"] if each["kind"] == "call")
        asked = {
            "rollouts": ("rollouts", {"limit": 100}),
            "rollouts, the last page": ("rollouts", {"limit": 100, "offset": rows["total"] - 100}),
            "rollouts, by reward": ("rollouts", {"limit": 100, "sort": "reward", "role": "solver"}),
            "rollouts, of one step": ("rollouts", {"limit": 100, "step": 100}),
            "groups, by spread": ("groups", {"sort": "spread"}),
            "rollout": ("rollout", {"rollout": id_}),
            "call": ("call", {"rollout": id_, "call": call}),
            "system": ("system", {}),
            "pulse": ("pulse", {}),
            "runs": ("runs", {}),
            "run": ("run", {}),
        }
        found = {"the rollouts are read": {"first": first, "cpu": dashboard.cpu_ms() - before}}
        for title, (view, params) in asked.items():
            first, _ = dashboard.ask(view, run=name, **params)
            found[title] = {"first": first, **_time(dashboard, view, [{"run": name, **params}] * ASKED)}
        texts = [{"run": name, "limit": 100, "text": f"question {number}:"} for number in range(ASKED)]
        found["rollouts, a new text"] = _time(dashboard, "rollouts", texts)
        return {title: {what: round(ms, 1) for what, ms in each.items()} for title, each in found.items()}
    finally:
        dashboard.close()


def _time(dashboard: Dashboard, view: str, asked: list[dict[str, Any]]) -> dict[str, float]:
    before = dashboard.cpu_ms()
    times = [dashboard.ask(view, **params)[0] for params in asked]
    cpu = (dashboard.cpu_ms() - before) / len(times)
    return {"median": statistics.median(times), "slowest": max(times), "cpu": cpu}


def measure_ingest(run: Path, seconds: float) -> dict[str, Any]:
    """Calls a second that a hub takes in, in turns without and with three pages open."""
    events = [packed_event(raw_event(number)) for number in range(64)]
    size = sum(len(wire.pack(event)) for event in events) // len(events)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    began, used = time.monotonic(), cpu_seconds("/proc/stat")
    hub = start_hub(run, False)
    try:
        stream = Stream(hub["address"], "bench", window=64 * 2**20)
        warm_up(stream, events, size)
        for turn in range(2 * _TURNS):
            pages = _Pages(run) if turn % 2 else None
            speeds[turn % 2 == 1].append(_measure_speed(stream, events, size, seconds / (2 * _TURNS)))
            if pages is not None:
                pages.close()
        stream.close()
        ours = time.process_time() + cpu_seconds(f"/proc/{hub['pid']}/stat")
        others = (cpu_seconds("/proc/stat") - used - ours) / (time.monotonic() - began)
    finally:
        stop_hub(hub)
    alone, beside = (statistics.median(speeds[each]) for each in (False, True))
    return {
        "calls_per_second": round(alone),
        "with_three_pages": round(beside),
        "share": round(beside / alone, 3),
        "cores_used_by_others": round(others, 2),
    }


def _measure_speed(stream: Stream, events: list[tuple[Any, ...]], size: int, seconds: float) -> float:
    """Calls a second that became durable."""
    began, before = time.monotonic(), stream.status().acknowledged
    while time.monotonic() - began < seconds:
        send(stream, events, size)
    stream.flush(60.0)
    return (stream.status().acknowledged - before) / (time.monotonic() - began)


class _Pages:
    """Three pages that ask for what they show whenever something has changed."""

    def __init__(self, folder: Path) -> None:
        self._dashboard, self._ends = Dashboard(folder), threading.Event()
        shown: list[tuple[str, dict[str, Any]]] = [("rollouts", {"limit": 100}), ("run", {}), ("system", {})]
        self._name = self._dashboard.ask("runs")[1]["runs"][0]["name"]
        for view, params in shown:  # what is measured is a page that is open, not how one is opened
            while self._dashboard.ask(view, run=self._name, **params)[1].get("incomplete"):
                time.sleep(0.5)
        self._threads = [threading.Thread(target=self._look, args=each, daemon=True) for each in shown]
        for thread in self._threads:
            thread.start()

    def _look(self, view: str, params: dict[str, Any]) -> None:
        name, seen = self._name, None
        while not self._ends.wait(_LOOK_SECONDS if seen else 0):
            _, pulse = self._dashboard.ask("pulse", run=name)
            if pulse["version"] != seen:
                seen = pulse["version"]
                self._dashboard.ask(view, run=name, **params)

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)
        self._dashboard.close()


def describe(result: dict[str, Any]) -> str:
    lines = [f"{result['rollouts']:,} rollouts with {result['calls']:,} calls; milliseconds"]
    for title, times in result["views_ms"].items():
        lines.append(f"  {title:<26}" + "  ".join(f"{what} {ms:8.1f}" for what, ms in times.items()))
    ingest = result["ingest"]
    speeds = f"{ingest['calls_per_second']:,} calls/s, {ingest['with_three_pages']:,} with three pages open"
    lines.append(f"{speeds}: {ingest['share']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
