"""A runner for tests: leases rollouts over the wire and plays the agent for them, as a process of a user would."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.hub.hubs import Client, Hub, end, raw_call, reward

SETTINGS: dict[str, Any] = {
    "backend": "bandit",
    "steps": 6,
    "save_every": 2,
    "rollouts.tasks_per_step": 3,
    "rollouts.group_size": 4,
    "rollouts.concurrency": 12,
    "algorithm.aggregation": "token-mean",
    "failure.backoff": 0.0,
}
TASKS = [{"question": f"which arm? {number}", "best": 3} for number in range(5)]

#: What an agent does with an assignment: the events it sends.
Agent = Callable[[dict[str, Any]], list[Any]]


class Runner:
    """One connection that leases and one that watches; `play` runs until the training is over."""

    def __init__(self, hub: Hub, name: str = "runner") -> None:
        self.name, self.hub = name, hub
        self.client, self.watcher = Client(hub), Client(hub)
        self.events: list[dict[str, Any]] = []
        self.leased: list[dict[str, Any]] = []
        self._next = 1
        self._since = 0

    def train(self, agent: Agent, settings: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        """Train to the end; the last event, 'finished' or 'failed'."""
        self.begin(settings, **params)
        return self.play(agent)

    def begin(self, settings: dict[str, Any] | None = None, **params: Any) -> None:
        self.look()
        self._since = len(self.events)
        wanted = {"tasks": TASKS, "held_out": TASKS[:2], **params, "settings": {**SETTINGS, **(settings or {})}}
        self.watcher.ask("train", **wanted)

    def play(self, agent: Agent, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Run rollouts until an event is the last one, or the wanted one; that event."""
        until = until or (lambda event: event["type"] in {"finished", "failed"})
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            for assignment in self.lease(16, 0.05):
                self.send(agent(assignment))
            self.look()
            for event in self.events[self._since :]:
                if until(event):
                    return event
        raise AssertionError(f"the training does not end: {self.events}")

    def lease(self, places: int, wait: float) -> list[dict[str, Any]]:
        given: list[dict[str, Any]] = self.client.ask("lease", runner=self.name, places=places, wait=wait)
        self.leased += given
        return given

    def send(self, events: list[Any]) -> None:
        if events:
            self.client.batch(self._next, events)
            self._next += len(events)

    def look(self) -> None:
        after = self.events[-1]["number"] if self.events else 0
        self.events += self.watcher.ask("watch", after=after)

    def steps(self) -> list[dict[str, Any]]:
        """Metrics of each step, in order."""
        return [event["metrics"] for event in self.events if event["type"] == "step"]

    def close(self) -> None:
        self.client.close()
        self.watcher.close()


def ask_engine(assignment: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A chat completion of the engine, sampled as the assignment says."""
    body = {"model": assignment["endpoint"]["model"], "messages": [], **assignment["sampling"], **more}
    request = urllib.request.Request(assignment["endpoint"]["url"] + "/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def call(assignment: dict[str, Any], answer: dict[str, Any], **changes: Any) -> list[Any]:
    """The REPLY event of a call, with the temperature that was asked for."""
    event = raw_call(assignment["key"], answer, **changes)
    event[3] = json.dumps({"messages": [], **assignment["sampling"]}).encode()
    return event


def good(assignment: dict[str, Any], **more: Any) -> list[Any]:
    """An agent that calls the engine once; its reward is 1 for the best arm."""
    answer = ask_engine(assignment, **more)
    arm = int(answer["choices"][0]["message"]["content"])
    key = assignment["key"]
    return [call(assignment, answer), reward(key, float(arm == assignment["task"]["best"])), end(key, output=str(arm))]


def failing(status: str, error: str) -> Agent:
    """An agent whose rollouts all end like this."""
    return lambda assignment: [end(assignment["key"], status, error)]


def score(assignment: dict[str, Any], value: float) -> list[Any]:
    """A rollout that calls the engine once and earns this."""
    key = assignment["key"]
    return [call(assignment, ask_engine(assignment)), reward(key, value), end(key)]


class Seeded:
    """An agent like `good` whose samples depend on the weights and on its place in the step alone."""

    def __init__(self) -> None:
        self.versions: dict[int, list[int]] = {}
        """Step -> version that sampled each of its tokens, in the order of its rollouts."""
        self._count: dict[str, int] = {}

    def __call__(self, assignment: dict[str, Any]) -> list[Any]:
        if assignment["mode"] == "evaluate":
            return good(assignment)
        group = assignment["group"]
        step, place = map(int, group.split("-"))
        number = self._count[group] = self._count.get(group, -1) + 1
        answer = ask_engine(assignment, seed=seed(step, place, number))
        self.versions.setdefault(step, []).append(answer["choices"][0]["weight_versions"][0][0])
        arm = int(answer["choices"][0]["message"]["content"])
        key = assignment["key"]
        return [call(assignment, answer), reward(key, float(arm == assignment["task"]["best"])), end(key)]


def seed(step: int, place: int, number: int) -> int:
    """The seed of one rollout: the `number`-th (from 0) of the group at `place` of `step`."""
    return 10_000 * step + 100 * place + number
