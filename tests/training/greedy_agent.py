"""An agent that tries what it is not given, and writes down what it got: each attempt's name and outcome."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import openai

import lightning_sdk as lightning
from lightning_sdk.hub.client import HubClient
from lightning_sdk.stream import wire
from lightning_sdk.trace.scope import current_scope

HERE = Path(__file__).resolve().parent
TOLD = HERE / "told.jsonl"
client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none")


@lightning.agent(role="solver", trainable=True)
def solve(task: dict) -> str:
    endpoint = current_scope().endpoint()
    assert endpoint is not None
    for name, attempt in (
        ("learner", learner),
        ("other rollout", other_rollout),
        ("tool", tool),
        ("hub", hub),
        ("gateway", gateway),
    ):
        with TOLD.open("a") as file:
            file.write(json.dumps({"attempt": name, "got": attempt(endpoint)}) + "\n")
    messages = [{"role": "user", "content": task["question"]}]
    return client.chat.completions.create(model="gpt", messages=messages).choices[0].message.content or ""


@lightning.reward
def length(task: dict, answer: str) -> float:
    return float(len(answer))


def learner(endpoint) -> list:
    """With its own engine key: save files, load another model, update, at every port of the training's processes."""
    ports = set().union(*map(listening, Path("/proc").glob("[0-9]*")))
    assert int(endpoint.url.split(":")[2].split("/")[0]) in ports and len(ports) >= 3
    body = wire.pack({"folder": str(HERE / "taken")})
    (HERE / "taken").mkdir(exist_ok=True)
    paths = ("learner/save", "learner/load", "learner/update", "learner/facts")
    return [ask(f"http://127.0.0.1:{port}/{path}", endpoint.key, body) for port in ports for path in paths]


def listening(process: Path) -> set[int]:
    """The ports of a process that runs in this folder."""
    try:
        if (process / "cwd").readlink() != HERE:
            return set()
        own = {str(each.readlink()) for each in (process / "fd").iterdir()}
    except OSError:  # gone, or another user's
        return set()
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


def other_rollout(endpoint) -> list:
    """With its own engine key: a completion in another rollout's name; and one with a key that it made up."""
    body = json.dumps({"model": endpoint.model, "prompt": [1], "max_tokens": 1}).encode()
    stolen = re.sub("[0-9a-f]{32}", "0" * 32, endpoint.key, count=1)
    return [
        ask(f"{endpoint.url}/completions", endpoint.key, body, rollout="0" * 32),
        ask(f"{endpoint.url}/completions", stolen, body, rollout="0" * 32),
    ]


def tool(endpoint) -> list:
    """What a tool finds in the environment that it inherits, and in the command lines of its parents."""
    command = [sys.executable, "-c", "import os; print(dict(os.environ))"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = Path(f"/proc/{os.getpid()}/cmdline").read_text() + Path(f"/proc/{os.getppid()}/cmdline").read_text()
    return re.findall(r"a secret of people|lk1-|lr1-", run.stdout + lines)


def hub(endpoint) -> list:
    """With the key of the runner that it runs in: stop the training, start another, hear of others' rollouts."""
    (runner,) = (each for each in gc.get_objects() if type(each).__name__ == "Runner")
    got = []
    for method, params in (
        ("stop", {}),
        ("interrupt", {}),
        ("train", {"settings": {"model": "/"}}),
        ("watch", {"after": 0}),
        ("status", {}),
        ("disband", {}),
        ("validate", {}),
    ):
        try:
            with HubClient(runner._address, runner._key) as asking:
                got.append(repr(asking.ask(method, **params)))
        except lightning.LightningError as error:
            got.append("refused" if "does not permit" in str(error) else str(error))
    return got


def gateway(endpoint) -> list:
    """With its rollout's gateway key: what the provider's account holds."""
    base = lightning.gateway_environment()["OPENAI_BASE_URL"]
    return [ask(f"{base}/{path}", "", None, method) for method, path in (("DELETE", "files/a"), ("GET", "files"))]


def ask(url: str, key: str, body: bytes | None, method: str = "POST", rollout: str = "") -> int | str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"x-lightning-rollout": rollout} if rollout else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, ValueError) as error:  # something that speaks another protocol
        return type(error).__name__
    except Exception as error:
        return type(error).__name__
