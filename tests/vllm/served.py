"""A fleet of real vLLM servers that serve spark, with the model that a learner would change, and somebody who asks."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from openai import OpenAI
from transformers import PreTrainedModel

from lightning_embedded.vllm import constraining, constraints_of
from lightning_process.model import load
from lightning_process.source import locate
from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_sdk.settings import Settings
from lightning_vllm.command import ServerPlacement
from lightning_vllm.fleet import Fleet
from lightning_vllm.front import Front
from lightning_vllm.launch import launcher
from lightning_vllm.model_reader import read_model_info
from lightning_vllm.server import VllmServer
from tests.front.standin import listening

KEY, MODEL = "front-key", "spark"
#: Long enough that its first blocks of keys and values are cached.
LONG = "Calculate " + " + ".join(map(str, range(10, 50))) + "."


class Served:
    """A fleet, and its model on the learner's side."""

    def __init__(self, fleet: Fleet, servers: dict[Path, list[VllmServer]], url: str) -> None:
        self.fleet, self.url = fleet, url
        self._servers = servers
        self.loaded = load(MODEL)
        self.model: PreTrainedModel = self.loaded.model
        self.constraints = constraints_of(self.loaded)
        self.version = 0
        self._threads = ThreadPoolExecutor(32)
        self._client = OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=600)

    @property
    def servers(self) -> list[VllmServer]:
        """Those that run now, by number."""
        return [started[-1] for _, started in sorted(self._servers.items())]

    def ask(self, content: str = LONG, rollout: str = "r", **fields: Any) -> Any:
        """A reply, as plain data with vLLM's own fields."""
        extra = {"return_token_ids": True, **fields.pop("extra", {})}
        fields = {"max_tokens": 24, "temperature": 1.0, "logprobs": True, **fields}
        reply = self._client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": content}],
            extra_body=extra,
            extra_headers={ROLLOUT_HEADER: rollout},
            **fields,
        )
        return list(reply) if fields.get("stream") else reply.model_dump()

    def later(self, *args: Any, **fields: Any) -> Future[Any]:
        return self._threads.submit(self.ask, *args, **fields)

    def change(self, scale: float = 0.05) -> None:
        """A new version of the model, in place, as an optimizer makes it; `publish` is for the test."""
        generator = torch.Generator().manual_seed(self.version)
        with torch.no_grad():
            for parameter in self.model.parameters():
                noise = torch.randn(parameter.shape, generator=generator) * parameter.std() * scale
                parameter.add_(noise)
        self.version += 1

    def publish(self) -> None:
        self.fleet.publish(self.model.state_dict(), self.version)

    def gaps(self, reply: dict[str, Any], model: PreTrainedModel | None = None) -> torch.Tensor:
        """[C] differences of the log-probs that vLLM told from those that a forward pass here gives."""
        choice = reply["choices"][0]
        prompt, sampled = reply["prompt_token_ids"], choice["token_ids"]
        with torch.no_grad():
            logits = (model or self.model)(torch.tensor([prompt + sampled])).logits[0].float()
        ours = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(sampled)[:, None])[:, 0]
        theirs = torch.tensor([token["logprob"] for token in choice["logprobs"]["content"]])
        return (ours - theirs).abs()

    def close(self) -> None:
        self._client.close()
        self._threads.shutdown()


@contextmanager
def serving(folder: Path, replicas: int = 1, **settings: Any) -> Iterator[Served]:
    """Servers in this process's charge; `settings` by their dotted names."""
    chosen = Settings.from_dict({"engine": "vllm", **settings})
    card, front = read_model_info(locate(MODEL)), Front(KEY, MODEL)
    started: dict[Path, list[VllmServer]] = {}
    launch = launcher(chosen, card, MODEL)

    def remember(place: ServerPlacement, log: Path) -> VllmServer:
        server = launch(place, log)
        started.setdefault(log, []).append(server)
        return server

    fleet = Fleet(front, [ServerPlacement()] * replicas, folder, remember, asynchronous=False)
    try:
        fleet.wait()
        with listening(front.app()) as url:
            served = Served(fleet, started, url)
            front.constrain = constraining(served.constraints)
            yield served
            served.close()
    finally:
        fleet.close()


def metric(server: VllmServer, name: str) -> float:
    """The sum of one of vLLM's own counters."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([\d.e+]+)$", server.metrics(), re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def group(leader: int) -> dict[int, str]:
    """The living processes of a process group: id -> command."""
    table = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(None, 3) for line in table.splitlines())
    return {int(pid): args for pid, of, state, args in rows if int(of) == leader and not state.startswith("Z")}


def kill_group_member(leader: int, words: str, signal_number: int) -> int:
    """Kill the one process of a group whose command has `words` in it."""
    (pid,) = [pid for pid, args in group(leader).items() if words in args and pid != leader]
    os.kill(pid, signal_number)
    return pid
