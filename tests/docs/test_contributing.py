"""The examples of CONTRIBUTING.md, installed beside the SDK as a third party would, and used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import block
from tests.sdk.provider import Provider

CLIENT = '''
"""A model client that no integration knows yet."""
import json

class Client:
    def post(self, url, body, key):
        if "fail" in body:
            raise ConnectionError("no route")
        return json.dumps({"url": url, "key": key, "sent": body}).encode()
'''
USE = """
import json
import lightning_sdk as lightning
from lightning_sdk.stream import sink
from lightning_sdk.trace.scope import Endpoint, RolloutScope, Scope, use_scope
from lightning_sdk.stream.wire import Event

class Kept:
    events = []
    def put(self, event, size): self.events.append(event)

lightning.init()
assert lightning.status()["integrations"]["acme"] == "waiting"
import acme
assert lightning.status()["integrations"]["acme"] == "active"
plain = acme.Client().post("https://acme.example", {"messages": []}, "mine")
assert json.loads(plain)["url"] == "https://acme.example" and not Kept.events

sink.connect(Kept())
rollout = RolloutScope("r", b"k" * 16, Endpoint("http://engine.example/v1", "spark", "theirs"), {"temperature": 1.0})
with use_scope(Scope(rollout=rollout, role="solver", trainable=True)):
    trained = json.loads(acme.Client().post("https://acme.example", {"messages": []}, "mine"))
    try:
        acme.Client().post("https://acme.example", {"fail": True}, "mine")
    except ConnectionError:
        pass
sink.connect(None)
assert trained["url"] == "http://engine.example/v1/chat/completions" and trained["key"] == "theirs"
assert trained["sent"]["model"] == "spark" and trained["sent"]["return_token_ids"] is True
(good, bad) = [event[2] for event in Kept.events if event[0] == Event.REPLY]
assert (good.role, good.trainable, good.status, good.framework) == ("solver", True, "ok", "acme")
assert (bad.status, bad.error) == ("error", "ConnectionError: no route")

lightning.shutdown()
assert acme.Client.post.__module__ == "acme" and not hasattr(acme.Client.post, "__wrapped__")
print("done")
"""
AGENT = """
import lightning_sdk as lightning
from openai import OpenAI

client = OpenAI(api_key="none")

@lightning.agent(trainable=True)
def reverse(task):
    messages = [{"role": "user", "content": task["text"]}]
    return client.chat.completions.create(model="any", messages=messages).choices[0].message.content

@lightning.reward
def reversed_right(task, answer):
    return float(answer == task["text"][::-1])
"""


def install(folder: Path, name: str, holding: str) -> dict[str, str]:
    """Put a page's module and its entry point where Python finds both; the environment that does."""
    (folder / f"{name}.py").write_text(block("CONTRIBUTING.md", "python", holding))
    groups = tomllib.loads(block("CONTRIBUTING.md", "toml", name))["project"]["entry-points"]
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_the_integration_catches_calls(tmp_path: Path) -> None:
    """It waits for its framework, records, redirects what is trained, tells of errors, and undoes itself."""
    environment = install(tmp_path, "lightning_acme", "def instrument")
    (tmp_path / "acme.py").write_text(CLIENT)
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("done"), done.stderr


@pytest.mark.timeout(120)
def test_the_backend_measures(tmp_path: Path) -> None:
    """It is found by name, and an agent is scored against the server that it points to."""
    environment = install(tmp_path, "lightning_elsewhere", "BackendSpec(")
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text('{"text": "abc"}\n{"text": "abca"}\n')
    command = [
        sys.executable,
        "-m",
        "lightning_sdk.cli",
        "evaluate",
        "agent.py:reverse",
        "--tasks",
        "tasks.jsonl",
        "--backend",
        "elsewhere",
        "--model",
        "their-model",
        "--json",
    ]
    with Provider() as server:
        environment |= {"ELSEWHERE_URL": server.url, "ELSEWHERE_KEY": "theirs"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {request.body["model"] for request in server.requests} == {"their-model"}
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer theirs"}
    (score,) = json.loads(done.stdout)["held_out"].values()
    assert (score["mean"], score["n"]) == (1.0, 2)
