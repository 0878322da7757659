"""The tasks and the rule of examples/room_selector, and its search with a model that does what its instructions say."""

from __future__ import annotations

import json
import random
import re
import runpy
import sys
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import lightning_sdk as lightning
from tests.examples.modules import EXAMPLES, load
from tests.prompts.model_servers import LocalServer

rooms = load("room_selector/rooms.py")
reflector = load("room_selector/reflector.py")


def test_the_rule_and_its_classes() -> None:
    """Tasks follow from the seed; each answer is as frequent as the others, so a constant one is right for a fifth."""
    tasks = rooms.tasks(5, 200)
    assert tasks == rooms.tasks(5, 200) != rooms.tasks(6, 200)
    assert Counter(task["answer"] for task in tasks) == dict.fromkeys(rooms.ANSWERS, 40)
    for task in tasks:
        people, need = re.match(r"Find a room for (\d+) people .* with a (\w+)\.", task["request"]).groups()
        fitting = [
            room for room in task["rooms"] if room["free"] and room["seats"] >= int(people) and room["has"] == need
        ]
        smaller = [room for room in fitting if room["seats"] <= min(each["seats"] for each in fitting)]
        assert task["answer"] == (smaller[0]["room"] if smaller else "none")
    assert not {rooms.table(task["rooms"]) for task in tasks} & {
        rooms.table(task["rooms"]) for task in rooms.tasks(rooms.HELD_OUT_SEED, 200)
    }


def test_the_tool_answers_for_the_requested_time_only() -> None:
    """A call with another day finds no rooms."""
    task = rooms.tasks(5, 1)[0]
    assert rooms.find(task, task["day"], task["time"]) == rooms.table(task["rooms"])
    assert rooms.find(task, "Sunday", task["time"]) == "no rooms"


def test_proposals_follow_from_the_seed() -> None:
    """A sentence more or less, of those that the module lists."""
    drawn = [reflector.propose(random.Random(seed), "You plan. Be brief.") for seed in range(40)]
    assert drawn == [reflector.propose(random.Random(seed), "You plan. Be brief.") for seed in range(40)]
    assert "You plan." in drawn
    added = [text.removeprefix("You plan. Be brief.") for text in drawn if text != "You plan."]
    assert added and all(any(sentence in text for sentence in reflector.SENTENCES) for text in added)


class Obedient(BaseHTTPRequestHandler):
    """A double of a model that does what its system message says, and without a word about it the nearest thing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, question = (message["content"] for message in asked["messages"][:2])
        message = self._call(text, question) if asked.get("tools") else self._choice(text, question)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None, **message}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        reply = {"id": "c", "object": "chat.completion", "created": 1, "model": "obedient", "usage": usage}
        data = json.dumps({**reply, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass

    def _call(self, text: str, question: str) -> dict[str, Any]:
        if "Use the tool" not in text:
            return {"content": "Alpha"}
        day, time = re.search(r"on (\w+) at (\S+) ", question).groups()
        arguments = json.dumps({"day": day, "time": time})
        return {
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find_rooms", "arguments": arguments}}]
        }

    def _choice(self, text: str, question: str) -> dict[str, Any]:
        people, need = re.search(r"for (\d+) people .* with a (\w+)\.", question).groups()
        listed = re.findall(r"(\w+): (\d+) seats, (\w+), (\w+)", question)
        listed = [room for room in listed if room[3] == "free"]
        if "enough seats" in text:
            listed = [room for room in listed if int(room[1]) >= int(people)]
        if "what is needed" in text:
            listed = [room for room in listed if room[2] == need]
        if "smallest" in text:
            listed.sort(key=lambda room: int(room[1]))
        return {"content": listed[0][0] if listed else "none" if "none" in text else "Alpha"}


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> Any:
    """Run the program; the report of its run."""
    reports = []

    def quiet(original: Callable[..., Any]) -> Callable[..., Any]:
        def run_quietly(*args: Any, **settings: Any) -> Any:
            reports.append(original(*args, **{**settings, "runs": folder, "quiet": True}))
            return reports[0]

        return run_quietly

    monkeypatch.setattr(lightning, "train", quiet(lightning.train))
    monkeypatch.setattr(lightning, "evaluate", quiet(lightning.evaluate))
    monkeypatch.setattr(sys, "argv", ["agent.py", *options])
    runpy.run_path(str(EXAMPLES / "room_selector" / "agent.py"), run_name="__main__")
    return reports[0]


def test_floor_and_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that say the whole rule reach 1.0 with a model that obeys; the program as it is guesses one room."""
    with LocalServer(Obedient) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert run(monkeypatch, tmp_path, "--oracle", "--provider").after.mean == 1.0


@pytest.mark.timeout(300)
def test_a_search_finds_words_for_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a large model: sentences proposed at random, kept by what the agent scores with them."""
    with LocalServer(Obedient) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        report = run(monkeypatch, tmp_path, "--offline", "--provider", "--rollouts", "2000")
    assert report.before.mean == 0.2 and report.after.mean > 0.3 and report.verdict == "better"
    assert "Use the tool first." in report.texts["planner"]
