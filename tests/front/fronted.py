"""A front with its servers, which are stand-ins, and somebody who asks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from openai import OpenAI

from lightning_sdk.capture.seam import ROLLOUT_HEADER
from lightning_vllm.front import Front
from tests.front.standin import StandIn, fronting, stand_in
from tests.waiting import wait_for

OURS, MODEL = "front-key", "spark"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def versions(self) -> list[Any]:
        return [choice["weight_versions"] for choice in self.json()["choices"]]


class Fronted:
    """A front, its servers, and somebody who asks."""

    def __init__(self, stack: ExitStack, servers: int, patience: float) -> None:
        self.servers = [stack.enter_context(stand_in(f"server{number}")) for number in range(servers)]
        self.front = Front(OURS, MODEL, patience=patience)
        self.url = stack.enter_context(fronting(self.front))
        self.front.serve([server.upstream for server in self.servers], 1)
        self._threads = stack.enter_context(ThreadPoolExecutor(16))

    def ask(
        self,
        rollout: str = "r",
        path: str = "chat/completions",
        key: str = OURS,
        seconds: float = 20.0,
        **fields: Any,
    ) -> Reply:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "2+2"}], **fields}
        headers = {"Authorization": f"Bearer {key}", **({ROLLOUT_HEADER: rollout} if rollout else {})}
        request = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                return Reply(reply.status, dict(reply.headers), reply.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read().decode())

    def later(self, rollout: str = "r", **fields: Any) -> Future[Reply]:
        return self._threads.submit(self.ask, rollout, **fields)

    def until(self, true: Callable[[], bool]) -> None:
        wait_for(true, self.front.counts)

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=OURS, max_retries=0)


def request_counts(servers: Sequence[StandIn]) -> list[int]:
    return [len(server.requests) for server in servers]
